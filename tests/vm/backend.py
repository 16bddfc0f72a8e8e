"""What stands outside of the virtual machine: a time server, and a Mosquitto with TLS and somebody who listens to it."""

import asyncio
import json
import secrets
import socket
import struct
import subprocess
import time

from machine import Failed


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class TimeServer(asyncio.DatagramProtocol):
    """NTP (RFC 5905, 7.3): answers with this machine's time. systemd-timesyncd asks port 123 and no other."""

    EPOCH = 2_208_988_800  # 1900 to 1970, in seconds

    @classmethod
    async def start(cls):
        """Gives what has to be closed at the end."""
        loop = asyncio.get_running_loop()
        try:
            return (await loop.create_datagram_endpoint(cls, local_addr=("127.0.0.1", 123)))[0]
        except OSError as error:
            raise SystemExit(f"the trial's time server needs port 123 of 127.0.0.1, as root: {error}") from None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        if len(data) < 48:
            return
        now = time.time() + self.EPOCH
        stamp = struct.pack(">II", int(now), int(now % 1 * 2**32))
        # No leap second, version 4, server; stratum 1, poll 2^6 s, precision 2^-20 s; no delay, 1 ms of dispersion.
        head = struct.pack(">BBbbII4s", 0x24, 1, 6, -20, 0, 66, b"HOST")
        self.transport.sendto(head + stamp + data[40:48] + stamp + stamp, address)


class Backend:
    """Mosquitto with TLS, and what has arrived at it."""

    def __init__(self, folder):
        self.folder = folder / "backend"
        self.folder.mkdir()
        self.port = free_port()
        self.inside = free_port()
        # The same broker for who has the password alone.
        self.closed = free_port()
        self.password = secrets.token_hex(12)
        # The name under which the virtual machine reaches the host.
        self.certificates("10.0.2.2")
        (self.folder / "mosquitto.conf").write_text(
            f"per_listener_settings true\nuser root\nlog_dest none\npersistence false\nmax_queued_messages 100000\n"
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"certfile {self.folder}/broker.pem\nkeyfile {self.folder}/broker.key\n"
            f"listener {self.closed} 127.0.0.1\nallow_anonymous false\npassword_file {self.folder}/accounts\n"
            f"certfile {self.folder}/broker.pem\nkeyfile {self.folder}/broker.key\n"
            f"listener {self.inside} 127.0.0.1\nallow_anonymous true\n"
        )
        subprocess.run(["mosquitto_passwd", "-c", "-b", self.folder / "accounts", "bridge", self.password], check=True)
        # Each event that has come, by (epoch, seq).
        self.arrived = {}
        self.lines = 0

    def certificates(self, name):
        run = lambda *words: subprocess.run(words, cwd=self.folder, check=True, capture_output=True)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650",
            "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", "broker.key", "-out", "broker.csr")
        (self.folder / "names").write_text(f"subjectAltName=IP:{name}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
        run("openssl", "x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3650",
            "-extfile", "names", "-out", "broker.pem")

    async def start(self):
        self.broker = await asyncio.create_subprocess_exec("/usr/sbin/mosquitto", "-c", self.folder / "mosquitto.conf")
        while True:
            try:
                (await asyncio.open_connection("127.0.0.1", self.inside))[1].close()
                break
            except ConnectionError:
                await asyncio.sleep(0.1)
        self.consumer = await asyncio.create_subprocess_exec(
            "mosquitto_sub", "-p", str(self.inside), "-q", "1", "-t", "vitals/#", "-F", "%t %p",
            stdout=asyncio.subprocess.PIPE, limit=2**22,
        )
        self.task = asyncio.ensure_future(self.listen())

    async def listen(self):
        while line := await self.consumer.stdout.readline():
            self.lines += 1
            _, _, text = line.decode().partition(" ")
            try:
                message = json.loads(text)
            except ValueError:
                # `doctor` sends an empty one.
                continue
            events = message["data"] if isinstance(message.get("data"), list) else [message]
            for event in events:
                if "seq" in event and "epoch" in event:
                    self.arrived[event["epoch"], event["seq"]] = event

    async def until(self, what, wanted, limit):
        """What `wanted` gives, once it gives something."""
        try:
            async with asyncio.timeout(limit):
                while not (found := wanted(self)):
                    await asyncio.sleep(0.2)
                return found
        except TimeoutError:
            raise Failed(f"{what} has not come to the broker within {limit} s; {len(self.arrived)} events have") from None

    async def settled(self):
        """Waits until nothing more comes."""
        lines = None
        while lines != self.lines:
            lines = self.lines
            await asyncio.sleep(2)

    async def stop(self):
        for process in (self.consumer, self.broker):
            process.kill()
            await process.wait()
