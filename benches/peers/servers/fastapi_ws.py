"""Fan-out by FastAPI on uvicorn: serialised once, sent to all at once. fastapi_ws.py PORT RHYTHM"""

import asyncio
import contextlib
import json
import sys

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from message import message, moments

sockets = set()


async def publish():
    seq = 0
    for pause, burst in moments(sys.argv[2]):
        await asyncio.sleep(pause)
        for _ in range(burst):
            seq += 1
            text = json.dumps(message(seq), separators=(",", ":"))
            await asyncio.gather(*(socket.send_text(text) for socket in list(sockets)), return_exceptions=True)


@contextlib.asynccontextmanager
async def lifespan(_app):
    task = asyncio.create_task(publish())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.websocket("/ws")
async def serve(socket: WebSocket):
    await socket.accept()
    sockets.add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        sockets.discard(socket)


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", backlog=2048, ws_per_message_deflate=False)
