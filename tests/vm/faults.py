"""The daemon against a real bluetoothd on a virtual arm64 machine: what arrives at a dashboard, and how long it takes
after each fault."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sensors
from dashboard import Dashboard
from machine import Machine, say

VM = Path(sys.argv[1])
PACKAGE = Path(sys.argv[2])
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


async def trial(machine):
    strap, cuff, _tasks = await sensors.start(machine.folder / "hci")
    began = time.monotonic()
    await machine.boot(machine.folder / "hci")
    say(f"booted in {time.monotonic() - began:.0f} s: {await machine.run('uname -mr; bluetoothctl --version')}")
    await machine.run("mount -t 9p -o trans=virtio,version=9p2000.L,ro share /share")
    await machine.run("systemctl start bluetooth")
    await machine.attach()
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
    await machine.attach()
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
        # What is written is forgotten at the end.
        machine = Machine(VM, Path(folder), ["-drive", f"file={VM / 'disk'},format=raw,if=virtio,snapshot=on"])
        subprocess.run(["dpkg-deb", "-x", PACKAGE, Path(folder) / "package"], check=True)
        shutil.copy(Path(folder) / "package/usr/bin/vitalbridge", machine.share / "vitalbridge")
        (machine.share / "vitalbridge.toml").write_text(CONFIG)
        try:
            await trial(machine)
        except BaseException:
            await machine.tell(["bridge", "bluetooth"])
            raise
        finally:
            await machine.off()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
asyncio.run(main())
