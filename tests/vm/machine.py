"""The virtual arm64 machine of the trials, with a shell on a port of it, and a dashboard outside of it."""

import asyncio
import json
import socket
import ssl
import time
from pathlib import Path

import websockets

# A machine without hardware support boots and computes some ten times slower than a Raspberry Pi.
BOOT_LIMIT = 600
READING_LIMIT = 240


def say(words):
    print(words, flush=True)


class Machine:
    """The virtual machine, with a shell on a port of it."""

    def __init__(self, vm, folder, disk=None):
        """`vm` has kernel and disk. Without a disk of its own, what is written is forgotten at the end."""
        self.vm = vm
        self.folder = folder
        self.disk = f"file={disk},format=raw,if=virtio" if disk else f"file={vm / 'disk'},format=raw,if=virtio,snapshot=on"
        self.share = folder / "share"
        self.share.mkdir()
        self.hci = folder / "hci"
        self.process = self.writer = None
        self.count = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    async def boot(self):
        arguments = [
            "qemu-system-aarch64", "-machine", "virt,gic-version=3", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024",
            "-accel", "tcg,thread=multi", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio",
            "-kernel", self.vm / "vmlinuz", "-initrd", self.vm / "initrd",
            "-append", "console=ttyAMA0 root=/dev/vda rw quiet panic=-1 mitigations=off",
            "-drive", self.disk, "-device", "virtio-rng-pci",
            "-virtfs", f"local,path={self.share},mount_tag=share,security_model=none",
            "-chardev", f"socket,id=hci,path={self.hci}", "-device", "pci-serial,chardev=hci",
            "-chardev", f"socket,id=shell,path={self.folder / 'shell'},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=shell,name=trial",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:8080", "-device", "virtio-net-pci,netdev=net,romfile=",
        ]
        (self.folder / "shell").unlink(missing_ok=True)
        self.console = (self.folder / "console").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            *map(str, arguments), stdin=asyncio.subprocess.DEVNULL, stdout=self.console, stderr=self.console
        )
        while not (self.folder / "shell").exists():
            await asyncio.sleep(0.1)
        self.reader, self.writer = await asyncio.open_unix_connection(self.folder / "shell")
        # What is written before the shell is there is lost.
        async with asyncio.timeout(BOOT_LIMIT):
            while True:
                try:
                    return await asyncio.wait_for(self.run("true"), 2)
                except TimeoutError:
                    continue

    async def network(self):
        """What a DHCP client would do; the host is 10.0.2.2."""
        await self.run("ip link set lo up; for d in /sys/class/net/e*; do n=${d##*/}; ip link set $n up; "
                       "ip addr add 10.0.2.15/24 dev $n; ip route add default via 10.0.2.2; done")

    async def attach(self):
        """The radio is plugged in."""
        await self.run("setsid btattach -B /dev/ttyS0 -P h4 >/dev/null 2>&1 &")

    async def run(self, command):
        """Runs a command there; gives what it writes, its exit code last."""
        self.count += 1
        mark = f"--{self.count}--"
        self.writer.write(f"{{ {command}\n}} </dev/null 2>&1; echo {mark}$?\n".encode())
        text = b""
        while mark.encode() not in text:
            line = await self.reader.readline()
            if not line:
                raise ConnectionError(f"the machine ended while it ran: {command}")
            text += line
        return text.decode().replace(mark, "").strip()

    async def until(self, what, command, wanted, limit=60):
        answer = ""
        async with asyncio.timeout(limit):
            while wanted not in answer:
                answer = await self.run(command)
                await asyncio.sleep(0.1)
        say(f"   {what}")

    async def ended(self, limit):
        """Waits until the machine has ended by itself."""
        async with asyncio.timeout(limit):
            await self.process.wait()
        self.let_go()

    async def off(self):
        """As if the plug were pulled."""
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self.let_go()

    def let_go(self):
        if self.writer:
            self.writer.close()
            self.writer = None


class Dashboard:
    """What a dashboard gets."""

    async def start(self, port, token, certificate=None):
        """`certificate`: the text of the one that the bridge must have."""
        self.readings = []
        self.states = []
        self.seen = set()
        self.durable = (None, 0)
        secure = ssl.create_default_context(cadata=certificate) if certificate else None
        if secure:
            # The address outside of the machine is not in it.
            secure.check_hostname = False
        self.socket = await websockets.connect(
            f"ws{'s' if secure else ''}://127.0.0.1:{port}/ws", ssl=secure,
            additional_headers={"Authorization": f"Bearer {token}"}, open_timeout=60,
        )
        await self.socket.send(json.dumps({"type": "subscribe", "channels": ["patient/+/+", "device/+/status"]}))
        self.task = asyncio.ensure_future(self.listen())

    async def listen(self):
        async for text in self.socket:
            message = json.loads(text)
            data = message.get("data", {})
            if "seq" in message and "epoch" in message:
                self.seen.add((message["epoch"], message["seq"]))
            if message["type"] == "heartbeat":
                self.durable = (message.get("epoch"), data.get("durable_through", self.durable[1]))
            if message["type"] == "device_status":
                self.states.append((time.monotonic(), data))
                say(f"   {data.get('source_id')}: {data.get('link')} {data.get('reason') or ''}")
            elif isinstance(data, dict) and "metric" in data:
                self.readings.append((time.monotonic(), data))

    async def next(self, metric, since):
        """Seconds until the next reading of this metric that came after `since`."""
        async with asyncio.timeout(READING_LIMIT):
            while True:
                for at, data in self.readings:
                    if at > since and data["metric"] == metric and data["value"] is not None:
                        return at - since, data
                await asyncio.sleep(0.02)
