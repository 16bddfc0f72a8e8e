"""Prints the readings and alerts of a vitalbridge, and goes on after a loss where it was.

    export VITALBRIDGE_TOKEN=$(vitalbridge token issue --role viewer --for 8h)
    python3 watch.py ws://127.0.0.1:8080/ws

Needs the package `websockets` (Debian: python3-websockets). docs/protocol.md says what the messages mean.
"""

import asyncio
import json
import os
import random
import sys
from decimal import Decimal

import websockets

CHANNELS = ["patient/+/+", "alerts/+"]
# Two heartbeats of 5 s missed: the connection is lost, whatever TCP says.
SILENCE_S = 10.5


class Refused(Exception):
    """The bridge does not want this client back as it is: see the close code."""


def show(frame):
    data = frame["data"]
    if frame["type"] == "health_update":
        # No number is never a zero and never the last one: `absent` says why there is none.
        value = f"-- ({data['absent']})" if data["value"] is None else f"{data['value']} {data['unit']}"
        print(frame["seq"], data.get("patient_id", data["device_id"]), data["metric"], value, flush=True)
    elif frame["type"] == "alert":
        print(frame["seq"], data.get("patient_id", "bridge"), "ALERT", data["priority"], data["change"], data["message"], flush=True)


async def watch(url, token, position):
    """One connection. `position` is the last event that was seen, and is moved on."""
    async with websockets.connect(url, subprotocols=["vitals.v1.json"], max_size=None) as socket:
        await socket.send(json.dumps({"type": "authenticate", "token": token}))
        since = {"since": dict(position)} if position else {}
        await socket.send(json.dumps({"type": "subscribe", "channels": CHANNELS, "delivery": "all", **since}))
        caught_up = False
        while True:
            # Digits stay as the sensor gave them: 37.0 is not 37.
            frame = json.loads(await asyncio.wait_for(socket.recv(), SILENCE_S), parse_float=Decimal)
            if frame["type"] in ("auth_error", "error"):
                print(frame["data"]["message"], file=sys.stderr)
            elif frame["type"] == "subscribed":
                epoch, last = frame["data"]["epoch"], frame["data"]["last_seq"]
                if frame["data"]["lost"]:
                    print("lost for ever:", frame["data"]["lost"], file=sys.stderr)
            elif frame["type"] == "snapshot":
                caught_up = True
                position.update(epoch=epoch, seq=last)
            elif "seq" in frame:
                show(frame)
                # Until the snapshot an alert of the present may overtake what was missed.
                if caught_up or frame["seq"] <= last:
                    position.update(epoch=frame["epoch"], seq=frame["seq"])


async def main(url, token):
    position, attempt = {}, 0
    while True:
        seen = position.get("seq")
        try:
            await watch(url, token, position)
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            if 4000 <= code < 4200 or code in (1008, 1009):
                raise Refused(f"the bridge closed with {code}: a new token, or another client, is needed") from closed
        except (OSError, asyncio.TimeoutError, websockets.InvalidHandshake) as error:
            print(f"no connection: {error!r}", file=sys.stderr)
        attempt = 0 if position.get("seq") != seen else attempt + 1
        await asyncio.sleep(random.uniform(0.2, min(5, 0.5 * 2**attempt)))


if __name__ == "__main__":
    if len(sys.argv) != 2 or "VITALBRIDGE_TOKEN" not in os.environ:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1], os.environ["VITALBRIDGE_TOKEN"]))
    except Refused as refused:
        sys.exit(str(refused))
    except KeyboardInterrupt:
        pass
