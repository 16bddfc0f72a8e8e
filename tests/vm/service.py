"""The package on a virtual arm64 machine with Debian: installed, ready, hardened, watched, well, still whole after a reboot and
after the plug was pulled, updated and removed.

    service.py FOLDER PACKAGE [--break NAME] [--cuts NUMBER] [--seed NUMBER] [--show NAMES]

FOLDER has the machine's disk and kernel. With --break one thing is broken first, and the trial passes if it is noticed.
"""

import argparse
import asyncio
import bisect
import http.client
import json
import random
import re
import secrets
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sensors
from backend import Backend, TimeServer
from card import Card
from dashboard import READING_LIMIT, Dashboard
from machine import Failed, Machine, need, say
from oximeter import Oximeter
from package import DROP_IN, PackageShows

# The service starts, a broker is connected to, a clock is set: with the emulated processor on a busy machine.
START_LIMIT = 240
# WatchdogSec= of the unit, RestartSec=, and a reserve.
WATCHDOG_LIMIT = 30 + 2 + 120
# Most exposure by `systemd-analyze security`, as in tests/unit-file.
EXPOSURE = 1.5
# `doctor` gives each of its checks a few seconds; so many times it is run again if one did not end in time.
DOCTOR_RUNS = 5
# What `doctor` has to have looked at.
AREAS = ("configuration", "clock", "dbus", "bluez", "adapter", "disk", "store", "broker", "secrets", "ports")
# So many times the plug is pulled if nobody says otherwise, each time after so many seconds of load.
CUTS = 3
LOAD_S = (12, 25)

CONFIG = """
[bridge]
id = "virtual"
[server]
listen = "0.0.0.0:8080"
[server.tls]
[store]
max_mib = 128
[mqtt]
broker = "mqtts://10.0.2.2:{port}"
{login}
[mqtt.tls]
ca_file = "broker-ca.pem"
[[patient]]
id = "P-1"
[[patient]]
id = "P-2"
[[patient]]
id = "P-3"
[[source]]
id = "strap"
kind = "ble"
address = "{strap}"
patient = "P-1"
[[source]]
id = "cuff"
kind = "ble"
sensor = "blood_pressure"
address = "{cuff}"
patient = "P-2"
"""
# Two numbers forty times a second.
LOAD = """
[[source]]
id = "load"
kind = "replay"
file = "load.csv"
speed = 40
patient = "P-3"
"""

# What is broken, in which show it has to be noticed, and how it is done in the machine.
BREAKS = {
    "watchdog": ("is_watched", f"printf '[Service]\\nWatchdogSec=0\\n' >{DROP_IN}/break.conf"),
    "bus": ("arrives_at_a_dashboard", f"printf '[Service]\\nInaccessiblePaths=/run/dbus\\n' >{DROP_IN}/break.conf"),
    "authority": ("arrives_at_a_broker", "cp /var/lib/vitalbridge/tls-certificate.pem /etc/vitalbridge/broker-ca.pem"),
    # Who sets the clock by hand takes away that it was synchronised before.
    "clock": ("is_well", "systemctl mask --now systemd-timesyncd; date -s @$(date +%s)"),
    "device": ("opens_a_serial_port", f"printf '[Service]\\nDeviceAllow=\\nDeviceAllow=char-ttyAMA rw\\n' >{DROP_IN}/break.conf"),
    "module": ("opens_a_serial_port", "systemctl mask modprobe@usbserial.service; modprobe -r usbserial"),
    "rule": ("opens_a_serial_port", "ln -s /dev/null /etc/udev/rules.d/60-vitalbridge.rules; udevadm control --reload"),
    "credential": ("takes_its_credentials", f"printf '[Service]\\nLoadCredentialEncrypted=\\n' >{DROP_IN}/zz-break.conf"),
    "restart": ("is_updated", "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d"),
    "purge": ("is_removed", "mount --bind /var/lib/vitalbridge /var/lib/vitalbridge"),
    "enabled": ("survives_a_reboot", "systemctl disable vitalbridge"),
    "bond": ("survives_a_reboot", "mount -t tmpfs tmpfs /var/lib/bluetooth"),
    "sync": (
        "survives_the_plug",
        f"cp /share/nosync.so /usr/lib/; printf '[Service]\\nEnvironment=LD_PRELOAD=/usr/lib/nosync.so\\n' >{DROP_IN}/break.conf",
    ),
}
# For the break `sync`: a database that believes that it is on disk.
NOSYNC = "int fsync(int file) { return 0; }\nint fdatasync(int file) { return 0; }\n"


class Trial(PackageShows):
    def __init__(self, vm, folder, package, broken, cuts, seed):
        self.folder = folder
        self.cuts = cuts
        self.package = package
        self.broken = broken
        self.random = random.Random(seed)
        # Most of it is empty.
        subprocess.run(["cp", "--sparse=always", vm / "disk", folder / "disk"], check=True)
        self.card = Card(folder / "disk", folder / "card", seed)
        self.machine = Machine(
            vm, folder,
            ["-blockdev", f"driver=nbd,node-name=card,server.type=unix,server.path={folder / 'card'}",
             "-device", "virtio-blk-pci,drive=card,write-cache=on"],
        )
        self.backend = Backend(folder)
        self.dashboard = Dashboard()
        self.oximeter = Oximeter()
        # How the broker is reached, and what the shows have added to the configuration.
        self.port, self.login = self.backend.port, ""
        self.parts = {}
        self.bonds = {}
        self.tasks = []
        self.boots = 0
        self.figures = []

    # What is done to the machine.

    async def boot(self):
        """Switches the machine on, with its sensors around it."""
        self.boots += 1
        for task in self.tasks:
            task.cancel()
        hci = self.folder / f"hci{self.boots}"
        self.strap, self.cuff, self.tasks = await sensors.start(hci, self.bonds)
        began = time.monotonic()
        await self.machine.boot(hci)
        self.figures.append((f"start {self.boots} of the machine, until its shell answers", f"{time.monotonic() - began:.0f} s"))
        await self.machine.ask("mount -t 9p -o trans=virtio,version=9p2000.L share /share")
        if self.oximeter.is_plugged:
            await self.oximeter.plug_in(self.machine.adapter)

    async def ready(self):
        is_ready = "systemctl is-active --quiet vitalbridge && echo READY; systemctl is-failed vitalbridge"
        said = await self.machine.until("the service is ready", is_ready, ("READY", "failed"), START_LIMIT)
        if "READY" not in said:
            raise Failed(await self.machine.run("systemctl status --no-pager -n 20 vitalbridge"))

    async def shown(self, name):
        return await self.machine.ask(f"systemctl show vitalbridge -p {name} --value")

    async def put(self, text, name):
        """A file of the service's configuration, as the package has them."""
        (self.machine.share / name).write_text(text)
        await self.machine.ask(f"install -o root -g vitalbridge -m 640 /share/{name} /etc/vitalbridge/{name}")

    def text(self):
        """The configuration, with what the shows have added to it."""
        text = CONFIG.format(port=self.port, login=self.login, strap=sensors.STRAP, cuff=sensors.CUFF)
        return text + "".join(self.parts.values())

    async def configure(self, more=""):
        await self.put(self.text() + more, "vitalbridge.toml")
        await self.machine.ask("vitalbridge check && sync && systemctl restart vitalbridge")
        await self.ready()

    async def watch(self):
        """A dashboard outside of the machine, which trusts the bridge's own certificate, with the token that it has."""
        await self.dashboard.stop()
        await self.dashboard.start(self.machine.port, self.token, self.certificate)

    async def status_with(self, token):
        """The status of a request with this token."""
        def ask():
            secure = ssl.create_default_context(cadata=self.certificate)
            secure.check_hostname = False
            bridge = http.client.HTTPSConnection("127.0.0.1", self.machine.port, context=secure, timeout=READING_LIMIT)
            bridge.request("GET", "/api/v1/patients", headers={"Authorization": f"Bearer {token}"})
            return bridge.getresponse().status
        return await asyncio.to_thread(ask)

    async def heart_rate(self, since):
        """The next number of the strap at the dashboard; it must be one that the strap has sent."""
        of_strap = lambda data: data["metric"] == "heart_rate" and data["source_id"] == "strap"
        waited, data, name = await self.dashboard.find("the strap's heart rate", of_strap, since)
        need(data["value"] in self.strap.sent and data["mode"] == "real", f"the strap has not sent this: {data}")
        return waited, data, name

    async def pressure(self, systolic, diastolic):
        """A measurement of the cuff, at the dashboard."""
        began = time.monotonic()
        self.cuff.events.clear()
        await self.cuff.measure(systolic, diastolic)
        waited, data, name = await self.dashboard.find("the cuff", lambda data: data["metric"] == "blood_pressure", began)
        parts = data["components"]
        need((parts["systolic"], parts["diastolic"]) == (systolic, diastolic), f"the cuff has not measured this: {data}")
        return waited, name

    async def memory(self, what):
        status = await self.machine.ask(f"cat /proc/{await self.shown('MainPID')}/status")
        resident, largest = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024 for name in ("VmRSS", "VmHWM"))
        self.figures.append((f"memory of the service, {what}", f"{resident:.1f} MiB resident, at most {largest:.1f}"))

    async def start_time(self, what):
        began, ready = int(await self.shown("ExecMainStartTimestampMonotonic")), int(await self.shown("ActiveEnterTimestampMonotonic"))
        self.figures.append((f"from the start of the program to READY=1, {what}", f"{(ready - began) / 1e6:.2f} s"))
        self.figures.append((f"from the start of the kernel to READY=1, {what}", f"{ready / 1e6:.1f} s"))

    async def stored(self):
        """Every event that is in the store, as (epoch, seq), and the readings among them. The service is stopped for it."""
        await self.machine.ask("systemctl stop vitalbridge; rm -f /share/vitals.db*; cp /var/lib/vitalbridge/vitals.db* /share/")
        with sqlite3.connect(self.machine.share / "vitals.db") as database:
            sound = database.execute("PRAGMA integrity_check").fetchone()[0]
            need(sound == "ok", f"the database is damaged: {sound}")
            epochs = database.execute("SELECT first_seq, name FROM epoch ORDER BY id").fetchall()
            readings = [row[0] for row in database.execute("SELECT seq FROM reading")]
            events = [row[0] for row in database.execute("SELECT seq FROM event")]
        firsts = [first for first, _ in epochs]
        # Neither table has an epoch: it is the last one that begins at or before the row.
        named = lambda seqs: {(epochs[bisect.bisect_right(firsts, seq) - 1][1], seq) for seq in seqs}
        readings = named(readings)
        await self.machine.ask("systemctl start vitalbridge")
        await self.ready()
        return readings | named(events), readings

    # What is shown, in this order. Each gives the words of what it has seen.

    async def boots_debian(self):
        await self.boot()
        system = await self.machine.ask("uname -mr; systemctl --version | sed 's/ (.*//;q'; bluetoothctl --version | sed 's/.*: /BlueZ /'")
        return f"Debian for arm64 runs: {', '.join(system.splitlines())}"

    async def is_ready(self):
        shutil.copyfile(self.package, self.machine.share / "vitalbridge.deb")
        began = time.monotonic()
        await self.machine.ask("DEBIAN_FRONTEND=noninteractive dpkg -i /share/vitalbridge.deb")
        await self.ready()
        self.figures.append(("installation of the package, until the service is ready", f"{time.monotonic() - began:.0f} s"))
        unit = await self.machine.ask("systemctl show vitalbridge")
        for wanted in ("Type=notify", "User=vitalbridge", "ProtectSystem=strict", "NoNewPrivileges=yes", "WatchdogUSec=30s",
                       "UnitFileState=enabled", "NRestarts=0", "FragmentPath=/usr/lib/systemd/system/vitalbridge.service"):
            need(f"\n{wanted}\n" in f"\n{unit}\n".replace("=/lib/", "=/usr/lib/"), f"the service does not have {wanted}")
        need(await self.shown("DropInPaths") == "", "the unit is not as the package has it")
        groups = set((await self.machine.ask("id -nG vitalbridge")).split())
        need(groups == {"vitalbridge", "bluetooth", "dialout"}, f"its user is in the groups {groups}")
        said = await self.machine.ask("systemd-analyze security --no-pager vitalbridge | tail -n 1")
        exposure = float(re.search(r": ([0-9.]+)", said)[1])
        need(exposure <= EXPOSURE, f"the unit is exposed: {said}")
        # Inside the service's own mount name space.
        inside = f"nsenter -t {await self.shown('MainPID')} -m"
        need((await self.machine.answer(f"{inside} touch /usr/x"))[1] != 0, "the service could write to /usr")
        await self.start_time("after the installation")
        version = await self.machine.ask("vitalbridge --version")
        return f"the package is installed and its service ready, hardened: {version}, exposure {exposure}"

    async def arrives_at_a_dashboard(self):
        await self.put((self.backend.folder / "ca.pem").read_text(), "broker-ca.pem")
        await self.machine.ask("systemctl enable --now trial-radio")
        powered = "busctl get-property org.bluez /org/bluez/hci0 org.bluez.Adapter1 Powered"
        await self.machine.until("the adapter is on", powered, "true", START_LIMIT)
        await self.configure()
        if self.broken:
            await self.breaks()
        self.token = await self.machine.ask("vitalbridge token issue --role admin --user trial --for 24h")
        certificate = await self.machine.ask("cat /var/lib/vitalbridge/tls-certificate.pem")
        self.certificate = re.search(r"-----BEGIN.*?-----END CERTIFICATE-----", certificate, re.S)[0] + "\n"
        await self.watch()
        _, data, _ = await self.heart_rate(0)
        paired, _ = await self.pressure(121, 81)
        need("paired" in self.cuff.events, f"the cuff was not paired: {self.cuff.events}")
        self.figures.append(("a cuff, from its first advertisement over its pairing to the dashboard", f"{paired:.1f} s"))
        return f"a strap and an encrypted cuff, over bluetoothd, at a WebSocket client outside: {data['value']} /min, 121/81 mmHg"

    async def breaks(self):
        if self.broken == "sync":
            (self.folder / "nosync.c").write_text(NOSYNC)
            library = self.machine.share / "nosync.so"
            subprocess.run(["aarch64-linux-gnu-gcc", "-shared", "-fPIC", "-o", library, self.folder / "nosync.c"], check=True)
        await self.machine.ask(f"mkdir -p {DROP_IN}; {BREAKS[self.broken][1]}")
        await self.machine.ask("systemctl daemon-reload; systemctl restart vitalbridge")
        await self.ready()

    async def arrives_at_a_broker(self):
        _, data, name = await self.heart_rate(time.monotonic())
        message = await self.backend.until("the same reading", lambda backend: backend.arrived.get(name), READING_LIMIT)
        need(message["data"]["value"] == data["value"] and message["data"]["patient_id"] == "P-1", f"{message} is not {data}")
        metrics = lambda backend: {event["data"].get("metric") for event in backend.arrived.values()}
        await self.backend.until("the cuff's measurement", lambda backend: "blood_pressure" in metrics(backend), READING_LIMIT)
        return f"the same readings at a Mosquitto outside, over TLS: {len(self.backend.arrived)} events so far"

    async def is_well(self):
        green = await self.green(*AREAS)
        await self.memory(f"with {3 if self.oximeter.is_plugged else 2} sensors and a dashboard")
        return f"doctor is green: {', '.join(green)}"

    async def green(self, *areas):
        """The areas that `doctor` finds well. These are among them, and nothing is wrong."""
        synchronised = "timedatectl show -p NTPSynchronized --value"
        await self.machine.until("the clock is synchronised", synchronised, "yes", START_LIMIT)
        for _ in range(DOCTOR_RUNS):
            text, code = await self.machine.answer("vitalbridge doctor --json")
            findings = json.loads(text)["findings"]
            bad = [finding for finding in findings if finding["level"] not in ("ok", "skipped")]
            # An emulated processor on a busy machine: its advice is to run it again.
            if not bad or any(finding["check"] != "too_late" for finding in bad):
                break
            say(f"   doctor was too slow: {', '.join(finding['area'] for finding in bad)}")
        need(code == 0 and not bad, f"doctor ended with {code}: {bad}")
        green = sorted({finding["area"] for finding in findings if finding["level"] == "ok"})
        for area in areas:
            need(area in green, f"doctor has not looked at {area}: {findings}")
        return green

    async def is_watched(self):
        pid, restarts = await self.shown("MainPID"), int(await self.shown("NRestarts"))
        began = time.monotonic()
        await self.machine.ask(f"kill -STOP {pid}")
        again = f"[ $(systemctl show vitalbridge -p NRestarts --value) -gt {restarts} ] && echo AGAIN"
        await self.machine.until("it is started anew", again, "AGAIN", WATCHDOG_LIMIT)
        await self.ready()
        need(await self.shown("MainPID") != pid, "it is the same process")
        log = await self.machine.ask("journalctl -b --no-pager -u vitalbridge")
        need("Failed with result 'watchdog'" in log, "it was not the watchdog")
        await self.watch()
        waited, _, _ = await self.heart_rate(began)
        self.figures.append(("from the hang of the daemon to the next heart rate at a dashboard", f"{waited:.0f} s"))
        return f"a daemon that hangs is ended by the watchdog and started anew; the next heart rate came {waited:.0f} s after the hang"

    async def survives_a_reboot(self):
        end = (datetime.now(UTC) + timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ")
        await self.dashboard.order(
            "limits.set", patient_id="P-1", rule="heart_rate_high", above=187, clear={"at_most": 180}, reason="trial", expires=end
        )
        kept = "sha256sum /etc/vitalbridge/* /var/lib/vitalbridge/token.secret /var/lib/vitalbridge/tls-*.pem /var/lib/vitalbridge/machine"
        files = await self.machine.ask(kept)
        await self.machine.ask("systemctl --no-block reboot")
        await self.machine.ended(START_LIMIT)
        await self.dashboard.stop()
        # The run that has just ended in order owes everything that it has shown, earlier ones what they have promised.
        shown = {(epoch, seq) for epoch, seq in self.dashboard.seen if epoch == self.dashboard.epoch}
        before = shown | self.dashboard.promised() | set(self.backend.arrived)
        # From here on nobody gives orders but to look: the service, the radio and the network start by themselves.
        began = time.monotonic()
        await self.boot()
        await self.ready()
        need(await self.machine.ask(kept) == files, "the configuration or the secrets are not what they were")
        await self.watch()
        await self.heart_rate(began)
        self.figures.append(("from the power to a heart rate at a dashboard", f"{time.monotonic() - began:.0f} s"))
        waited, _ = await self.pressure(122, 82)
        need("paired" not in self.cuff.events, f"the cuff had to be paired again: {self.cuff.events}")
        self.figures.append(("a bonded cuff, from its first advertisement to the dashboard", f"{waited:.1f} s"))
        limit = await self.dashboard.limit("P-1", "heart_rate_high")
        need(limit and "above 187 " in limit["after"], f"the limit is not in force: {limit}")
        await self.start_time("at the start of the machine")
        words = await self.is_well()
        stored, _ = await self.stored()
        missing = before - stored
        need(before and not missing, f"{len(missing)} of {len(before)} events are gone: {sorted(missing)[:10]}")
        return f"a reboot keeps everything: {len(before)} events, secrets, certificate, token, limit, bond; {words}"

    async def survives_the_plug(self):
        rows = (f"{second},{60 + second % 40},{90 + second % 10}" for second in range(40_000))
        await self.put("t_s,HR,SpO2\n" + "\n".join(rows) + "\n", "load.csv")
        await self.configure(LOAD)
        said = []
        for cut in range(self.cuts):
            said.append(await self.plug(cut))
        stored, readings = await self.stored()
        drained = lambda backend: readings <= backend.arrived.keys()
        await self.backend.until("the broker has every stored reading", drained, READING_LIMIT)
        return f"{self.cuts} times the plug was pulled under load: {'; '.join(said)}; the broker has every reading that is stored"

    async def plug(self, cut):
        """The plug is pulled once, and everything that was reported durable is looked for."""
        await self.watch()
        began = time.monotonic()
        await self.dashboard.find("the load", lambda data: data["source_id"] == "load", began)
        before = len(self.dashboard.seen)
        began = time.monotonic()
        orders = asyncio.ensure_future(self.orders())
        await asyncio.sleep(self.random.uniform(*LOAD_S))
        if cut == 0:
            await self.memory("under load")
        rate = (len(self.dashboard.seen) - before) / (time.monotonic() - began)
        flushes = self.card.flushes
        await self.machine.off()
        kept, lost = self.card.power_cut()
        orders.cancel()
        await self.dashboard.stop()
        await self.backend.settled()
        through, held = self.dashboard.promised() | set(self.backend.arrived), self.held
        need(rate > 20 and self.dashboard.done, f"there was no load: {rate:.0f} events/s")
        await self.boot()
        await self.ready()
        stored, _ = await self.stored()
        missing = through - stored
        need(not missing, f"{len(missing)} of {len(through)} events that were reported durable are gone: {sorted(missing)[:10]}")
        await self.watch()
        await self.dashboard.find("the load", lambda data: data["source_id"] == "load", time.monotonic())
        limit = await self.dashboard.limit("P-3", "spo2_low")
        need(limit and any(f"below {below} " in limit["after"] for below in held), f"none of {held} is in force: {limit}")
        self.figures.append((f"load before cut {cut + 1}", f"{rate:.0f} events/s, {flushes} flushes; {lost} of {kept + lost} pages of the card lost"))
        return f"none of {len(through)} durable events lost"

    async def orders(self):
        """A limit that is changed every second. `held`: the last that was answered as durable, and what may hold in its place."""
        end = (datetime.now(UTC) + timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.held = []
        for count in range(10_000):
            below = 70 + count % 19
            self.held.append(below)
            answer = await self.dashboard.order(
                "limits.set", patient_id="P-3", rule="spo2_low", below=below, clear={"at_least": below + 1}, reason="trial", expires=end
            )
            if answer["durable"]:
                self.held = [below]
            await asyncio.sleep(1)


SHOWS = (
    "boots_debian", "is_ready", "arrives_at_a_dashboard", "arrives_at_a_broker", "is_well", "is_watched", "opens_a_serial_port",
    "opens_a_gpio", "takes_its_credentials", "survives_a_reboot", "survives_the_plug", "is_updated", "is_removed",
)


# Without these nothing can be shown.
PREPARING = SHOWS[:3]


async def shows(trial, chosen):
    """Shows one after the other, until one fails. Gives its name. Where something is broken, only what leads to it is shown."""
    wanted = [*PREPARING, BREAKS[trial.broken][0]] if trial.broken else [*PREPARING, *chosen] if chosen else SHOWS
    for name in dict.fromkeys(wanted):
        began = time.monotonic()
        try:
            words = await getattr(trial, name)()
        except Exception as error:  # noqa: BLE001: whatever it is, it has not been shown
            if not isinstance(error, Failed):
                traceback.print_exc()
            say(f"FAIL {name}: {error or repr(error)} ({time.monotonic() - began:.0f} s)")
            return name
        say(f"PASS {name}: {words} ({time.monotonic() - began:.0f} s)")
    return None


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("package", type=Path)
    parser.add_argument("--break", dest="broken", choices=BREAKS)
    parser.add_argument("--cuts", type=int, default=CUTS)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--show", type=lambda names: names.split(","), help="these alone, and what leads to them: " + ", ".join(SHOWS))
    wanted = parser.parse_args()
    if strange := set(wanted.show or ()) - set(SHOWS):
        parser.error(f"no such show: {', '.join(strange)}; there are {', '.join(SHOWS)}")
    began = time.monotonic()
    say(f"seed {wanted.seed}")
    with tempfile.TemporaryDirectory(prefix="vitalbridge-vm-") as folder:
        trial = Trial(wanted.folder, Path(folder), wanted.package, wanted.broken, wanted.cuts, wanted.seed)
        time_server = await TimeServer.start()
        try:
            await trial.card.start()
            await trial.backend.start()
            failed = await shows(trial, wanted.show)
            if failed and failed != BREAKS.get(wanted.broken, (None,))[0]:
                await trial.machine.tell(["vitalbridge", "bluetooth", "trial-radio", "systemd-timesyncd", "systemd-networkd", "systemd-udevd"])
        finally:
            await trial.machine.off()
            await trial.backend.stop()
            await trial.card.stop()
            time_server.close()
    for what, value in trial.figures:
        say(f"   {what}: {value}")
    say(f"{(time.monotonic() - began) / 60:.1f} minutes")
    if wanted.broken:
        say(f"`{wanted.broken}` was broken, and {'noticed' if failed == BREAKS[wanted.broken][0] else 'NOT noticed where it has to be'}")
        return failed != BREAKS[wanted.broken][0]
    return failed is not None


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
sys.exit(asyncio.run(main()))
