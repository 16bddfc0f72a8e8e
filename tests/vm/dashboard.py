"""A dashboard outside of the virtual machine: what a WebSocket client gets, what it was told is on disk, and what it orders."""

import asyncio
import json
import ssl
import time

import websockets

from machine import Failed, say

READING_LIMIT = 240


class Dashboard:
    """One connection; `seen`, `durable` and `done` grow over all of them."""

    def __init__(self):
        self.readings = []
        self.states = []
        # Every event that came, as (epoch, seq).
        self.seen = set()
        # By epoch, through which seq all is on disk, as the bridge says.
        self.durable = {}
        # Commands that were answered as being on disk, as (epoch, seq).
        self.done = []
        self.waiting = {}
        self.snapshot = None
        self.epoch = None
        self.socket = self.task = None

    async def start(self, port, token, certificate=None):
        """`certificate`: the text of the one that the bridge must have."""
        secure = ssl.create_default_context(cadata=certificate) if certificate else None
        if secure:
            # The address outside of the machine is not in it.
            secure.check_hostname = False
        self.socket = await websockets.connect(
            f"ws{'s' if secure else ''}://127.0.0.1:{port}/ws", ssl=secure, max_size=None,
            additional_headers={"Authorization": f"Bearer {token}"}, open_timeout=60,
        )
        self.snapshot = None
        channels = ["patient/+/+", "device/+/status", "alerts/+", "audit"]
        await self.socket.send(json.dumps({"type": "subscribe", "channels": channels, "delivery": "all"}))
        self.task = asyncio.ensure_future(self.listen())

    async def listen(self):
        try:
            async for text in self.socket:
                self.take(json.loads(text))
        except websockets.ConnectionClosed:
            # The bridge is ended in these trials more than once.
            pass

    def take(self, message):
        data = message.get("data")
        kind = message["type"]
        if "seq" in message and "epoch" in message:
            self.epoch = message["epoch"]
            self.seen.add((message["epoch"], message["seq"]))
        if kind == "heartbeat":
            self.epoch = data["epoch"]
            self.durable[data["epoch"]] = data["durable_through"]
        elif kind == "result":
            waiting = self.waiting.pop(message["correlation_id"], None)
            if waiting and not waiting.done():
                waiting.set_result(data)
        elif kind == "snapshot":
            self.snapshot = data
        elif kind == "error":
            say(f"   the bridge says: {data}")
        elif kind == "device_status":
            self.states.append((time.monotonic(), data))
            say(f"   {data.get('source_id')}: {data.get('link')} {data.get('reason') or ''}")
        elif isinstance(data, dict) and "metric" in data and "value" in data:
            self.readings.append((time.monotonic(), data, (message.get("epoch"), message.get("seq"))))

    def promised(self):
        """The events of which the bridge has said that they are on disk."""
        seen = {(epoch, seq) for epoch, seq in self.seen if seq <= self.durable.get(epoch, 0)}
        return seen | set(self.done)

    async def limit(self, patient_id, rule):
        """What people have set of a rule and holds, as this connection was told at its begin; None if nothing holds."""
        async with asyncio.timeout(READING_LIMIT):
            while self.snapshot is None:
                await asyncio.sleep(0.02)
        found = (entry for entry in self.snapshot["limits"] if (entry["patient_id"], entry["rule"]) == (patient_id, rule))
        return next(found, None)

    async def order(self, name, **members):
        """Gives a command and waits for its answer; what is answered as being on disk is noted."""
        correlation_id = f"trial-{time.time_ns():020d}"
        self.waiting[correlation_id] = answer = asyncio.get_running_loop().create_future()
        await self.socket.send(
            json.dumps({"type": "command", "data": {"name": name, **members}, "correlation_id": correlation_id})
        )
        data = await asyncio.wait_for(answer, READING_LIMIT)
        if not data.get("ok"):
            raise Failed(f"{name} was refused: {data}")
        if data["durable"]:
            self.done.append((self.epoch, data["seq"]))
        return data

    async def find(self, what, wanted, since):
        """The first reading after `since` that is wanted: seconds until it came, its data, its name."""
        try:
            async with asyncio.timeout(READING_LIMIT):
                while True:
                    for at, data, name in self.readings:
                        if at > since and data["value"] is not None and wanted(data):
                            return at - since, data, name
                    await asyncio.sleep(0.02)
        except TimeoutError:
            newest = [data for _, data, _ in self.readings[-3:]]
            raise Failed(f"{what}: no such reading within {READING_LIMIT} s; the newest are {newest}") from None

    async def next(self, metric, since):
        """Seconds until the next reading of this metric that came after `since`."""
        waited, data, _ = await self.find(metric, lambda data: data["metric"] == metric, since)
        return waited, data

    async def stop(self):
        """Takes what has come, and goes."""
        if self.socket:
            await self.socket.close()
            await self.task
            self.socket = None
