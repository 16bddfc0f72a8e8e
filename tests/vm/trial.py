"""The daemon against a real bluetoothd on a virtual arm64 machine: what arrives at a dashboard, and how long it takes
after each fault."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import sensors
import websockets

VM = Path(sys.argv[1])
PROGRAM = Path(sys.argv[2])
# A machine without hardware support boots and computes some ten times slower than a Raspberry Pi.
BOOT_LIMIT = 180
READING_LIMIT = 120

CONFIG = f"""
[bridge]
id = "virtual"
[server]
listen = "0.0.0.0:8080"
[[patient]]
id = "P-1"
[[patient]]
id = "P-2"
[[source]]
id = "strap"
kind = "ble"
address = "{sensors.STRAP}"
patient = "P-1"
[[source]]
id = "cuff"
kind = "ble"
sensor = "blood_pressure"
address = "{sensors.CUFF}"
patient = "P-2"
"""


def say(words):
    print(words, flush=True)


class Machine:
    """The virtual machine, with a shell on a port of it."""

    def __init__(self, folder):
        self.folder = folder
        self.share = folder / "share"
        self.share.mkdir()
        self.process = self.writer = None
        self.count = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    async def boot(self):
        arguments = [
            "qemu-system-aarch64", "-machine", "virt,gic-version=3", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024",
            "-accel", "tcg,thread=multi", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio",
            "-kernel", VM / "vmlinuz", "-initrd", VM / "initrd",
            "-append", "console=ttyAMA0 root=/dev/vda rw quiet panic=-1 mitigations=off",
            "-drive", f"file={VM / 'disk'},format=raw,if=virtio,snapshot=on", "-device", "virtio-rng-pci",
            "-virtfs", f"local,path={self.share},mount_tag=share,security_model=none",
            "-chardev", f"socket,id=hci,path={self.folder / 'hci'}", "-device", "pci-serial,chardev=hci",
            "-chardev", f"socket,id=shell,path={self.folder / 'shell'},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=shell,name=trial",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:8080", "-device", "virtio-net-pci,netdev=net,romfile=",
        ]
        self.console = (self.folder / "console").open("wb")
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

    async def run(self, command):
        """Runs a command there; gives what it writes, its exit code last."""
        self.count += 1
        mark = f"--{self.count}--"
        self.writer.write(f"{{ {command}\n}} </dev/null 2>&1; echo {mark}$?\n".encode())
        text = b""
        while mark.encode() not in text:
            text += await self.reader.readline()
        return text.decode().replace(mark, "").strip()

    async def until(self, what, command, wanted, limit=60):
        answer = ""
        async with asyncio.timeout(limit):
            while wanted not in answer:
                answer = await self.run(command)
                await asyncio.sleep(0.1)
        say(f"   {what}")

    async def off(self):
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Dashboard:
    """What a dashboard gets."""

    async def start(self, port, token):
        self.readings = []
        self.states = []
        self.socket = await websockets.connect(
            f"ws://127.0.0.1:{port}/ws", additional_headers={"Authorization": f"Bearer {token}"}
        )
        await self.socket.send(json.dumps({"type": "subscribe", "channels": ["patient/+/+", "device/+/status"]}))
        self.task = asyncio.ensure_future(self.listen())

    async def listen(self):
        async for text in self.socket:
            message = json.loads(text)
            data = message["data"]
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


async def attach(machine):
    """The radio is plugged in."""
    await machine.run("setsid btattach -B /dev/ttyS0 -P h4 >/dev/null 2>&1 &")


async def trial(machine):
    strap, cuff, _tasks = await sensors.start(machine.folder / "hci")
    began = time.monotonic()
    await machine.boot()
    say(f"booted in {time.monotonic() - began:.0f} s: {await machine.run('uname -mr; bluetoothctl --version')}")
    await machine.run("mount -t 9p -o trans=virtio,version=9p2000.L,ro share /share")
    await machine.run("ip link set lo up; for d in /sys/class/net/e*; do n=${d##*/}; ip link set $n up; ip addr add 10.0.2.15/24 dev $n; done")
    await machine.run("systemctl start bluetooth")
    await attach(machine)
    powered = "busctl get-property org.bluez /org/bluez/hci0 org.bluez.Adapter1 Powered"
    await machine.until("the adapter is on", powered, "true")
    await machine.run("cp /share/vitalbridge /usr/local/bin/; cp /share/vitalbridge.toml /etc/; mkdir -p /var/lib/bridge")
    say(await machine.run("vitalbridge --version; vitalbridge check --config /etc/vitalbridge.toml | head -n 2"))
    run = "vitalbridge run --config /etc/vitalbridge.toml --state-dir /var/lib/bridge"
    await machine.run(f"systemd-run --unit=bridge -p Environment=VITALBRIDGE_LOG={os.environ.get('TRIAL_LOG', 'info')} {run}")
    began = time.monotonic()
    await machine.until("the daemon answers", "busybox wget -qO- http://127.0.0.1:8080/healthz", "ok")
    token = (await machine.run("vitalbridge token issue --state-dir /var/lib/bridge --role admin")).split()[0]
    dashboard = Dashboard()
    await dashboard.start(machine.port, token)
    table = [("start of the daemon", (await dashboard.next("heart_rate", began))[0])]

    async def measured(words, since, metric="heart_rate"):
        waited, data = await dashboard.next(metric, since)
        table.append((words, waited))
        say(f"{words}: {waited:.1f} s")
        return data

    began = time.monotonic()
    await cuff.measure(121, 81)
    data = await measured("an encrypted cuff, its first measurement: paired by the daemon", began, "blood_pressure")
    assert data["components"]["systolic"] == 121 and "paired" in cuff.events, (data, cuff.events)
    # Longer than the pause after which it is connected again.
    await asyncio.sleep(8)
    began = time.monotonic()
    cuff.events.clear()
    await cuff.measure(122, 82)
    data = await measured("the same cuff again, by its bond", began, "blood_pressure")
    assert data["components"]["systolic"] == 122 and "paired" not in cuff.events, (data, cuff.events)

    for systolic in (123, 124, 125):
        await asyncio.sleep(8)
        began = time.monotonic()
        await cuff.measure(systolic, 83)
        _, data = await dashboard.next("blood_pressure", began)
        assert data["components"]["systolic"] == systolic, data

    await strap.drop()
    await measured("the sensor drops the link", time.monotonic())
    await strap.vanish()
    await asyncio.sleep(40)
    await strap.appear()
    await measured("the sensor was away for 40 s", time.monotonic())
    strap.is_silent = True
    await asyncio.sleep(12)
    strap.is_silent = False
    await measured("notifications were silent for 12 s", time.monotonic())

    await machine.run("systemctl kill -s KILL bluetooth")
    killed = time.monotonic()
    await machine.until("bluetoothd is back", powered, "true")
    await measured("kill -9 of bluetoothd, systemd starts it anew", killed)
    await asyncio.sleep(3)
    await machine.run("systemctl restart bluetooth")
    await measured("systemctl restart bluetooth", time.monotonic())

    await machine.run("bluetoothctl power off")
    await asyncio.sleep(10)
    assert "false" in await machine.run(powered), "the adapter was switched on against the operator"
    await machine.run("bluetoothctl power on")
    await measured("power off by a person, 10 s, power on", time.monotonic())
    await machine.run("pkill -x btattach")
    await asyncio.sleep(5)
    await attach(machine)
    await measured("the adapter was unplugged and plugged in", time.monotonic())

    say(await machine.run("bluetoothctl devices Bonded"))
    ask = f"busybox wget -qO- --header 'Authorization: Bearer {token}' http://127.0.0.1:8080/api/v1/ble; echo"
    say(json.dumps(json.loads((await machine.run(ask)).splitlines()[0]), indent=1))
    say(await machine.run("systemctl show bridge -p CPUUsageNSec -p MemoryPeak -p NRestarts; grep -E 'VmHWM|VmRSS|Threads' /proc/$(systemctl show -P MainPID bridge)/status"))
    say("\n| on a real bluetoothd | next reading at the dashboard after |\n|---|---|")
    for words, waited in table:
        say(f"| {words} | {waited:.1f} s |")


async def main():
    with tempfile.TemporaryDirectory(prefix="vitalbridge-vm-") as folder:
        machine = Machine(Path(folder))
        (machine.share / "vitalbridge").write_bytes(PROGRAM.read_bytes())
        (machine.share / "vitalbridge").chmod(0o755)
        (machine.share / "vitalbridge.toml").write_text(CONFIG)
        try:
            await trial(machine)
        except BaseException:
            if machine.process:
                say("--- console\n" + (machine.folder / "console").read_text(errors="replace")[-4000:])
            if machine.writer:
                try:
                    async with asyncio.timeout(30):
                        say(await machine.run("journalctl -b --no-pager -n 120 -u bridge -u bluetooth"))
                except Exception as error:  # noqa: BLE001: what went wrong before is told
                    say(f"no journal: {error!r}")
            raise
        finally:
            await machine.off()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
asyncio.run(main())
