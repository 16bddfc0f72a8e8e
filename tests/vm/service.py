"""The package on a virtual arm64 machine with Debian: installed, ready, hardened, watched, well, and still whole after a
reboot and after the plug was pulled."""

import asyncio
import json
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import sensors
from backend import Backend, TimeServer
from machine import READING_LIMIT, Dashboard, Machine, say

VM = Path(sys.argv[1])
PACKAGE = Path(sys.argv[2])
# Under load: so many seconds before the plug is pulled.
LOAD_S = 40
# A start of the service, with the emulated processor.
START_LIMIT = 180

CONFIG = """
[bridge]
id = "virtual"
[server]
listen = "0.0.0.0:8080"
[server.tls]
[mqtt]
broker = "mqtts://10.0.2.2:{port}"
[mqtt.tls]
ca_file = "broker-ca.pem"
[[patient]]
id = "P-1"
[[patient]]
id = "P-2"
[[source]]
id = "strap"
kind = "ble"
address = "{strap}"
patient = "P-1"
[[source]]
id = "load"
kind = "replay"
file = "load.csv"
speed = 40
patient = "P-2"
"""

passed = []


def ok(words, began):
    """One thing is shown."""
    passed.append(words)
    say(f"PASS {words} ({time.monotonic() - began:.0f} s)")


class Trial:
    def __init__(self, folder):
        self.folder = folder
        disk = folder / "disk"
        shutil.copyfile(VM / "disk", disk)
        self.machine = Machine(VM, folder, disk)
        self.backend = Backend(folder)
        self.boots = 0

    async def boot(self):
        """Switches the machine on, with its sensors around it."""
        self.boots += 1
        self.machine.hci = self.folder / f"hci{self.boots}"
        self.strap, _cuff, self.tasks = await sensors.start(self.machine.hci)
        await self.machine.boot()
        await self.machine.network()
        await self.machine.run("systemctl restart systemd-timesyncd; mount -t 9p -o trans=virtio,version=9p2000.L share /share")
        await self.machine.run("systemctl start bluetooth")
        await self.machine.attach()
        powered = "busctl get-property org.bluez /org/bluez/hci0 org.bluez.Adapter1 Powered"
        await self.machine.until("the adapter is on", powered, "true", START_LIMIT)

    async def ready(self):
        await self.machine.until("the service is ready", "systemctl is-active vitalbridge", "\nactive\n", START_LIMIT)

    async def watch(self):
        """A dashboard outside of the machine, which trusts the bridge's own certificate."""
        token = (await self.machine.run("vitalbridge token issue --role admin")).split()[0]
        certificate = await self.machine.run("cat /var/lib/vitalbridge/tls-certificate.pem")
        certificate = re.search(r"-----BEGIN.*?-----END CERTIFICATE-----\n", certificate.replace("\r", ""), re.S)[0]
        self.dashboard = Dashboard()
        await self.dashboard.start(self.machine.port, token, certificate)

    async def install(self):
        began = time.monotonic()
        said = await self.machine.run("DEBIAN_FRONTEND=noninteractive dpkg -i --force-confold /share/vitalbridge.deb")
        assert said.endswith("\n0"), said
        await self.ready()
        unit = await self.machine.run("systemctl show vitalbridge -p Type,User,ProtectSystem,NoNewPrivileges,WatchdogUSec,UnitFileState")
        for wanted in ("Type=notify", "User=vitalbridge", "ProtectSystem=strict", "NoNewPrivileges=yes", "WatchdogUSec=30s"):
            assert wanted in unit, unit
        ok(f"the package is installed, its service ready under the hardened unit: {await self.machine.run('vitalbridge --version')}", began)

    async def configure(self):
        """The sensor, the load, the broker outside, and a watchdog that a trial can wait for."""
        text = CONFIG.format(port=self.backend.port, strap=sensors.STRAP)
        (self.machine.share / "vitalbridge.toml").write_text(text)
        (self.machine.share / "broker-ca.pem").write_bytes((self.backend.folder / "ca.pem").read_bytes())
        rows = (f"{second},{60 + second % 40},{90 + second % 10}" for second in range(400_000))
        (self.machine.share / "load.csv").write_text("t_s,HR,SpO2\n" + "\n".join(rows) + "\n")
        to = "/etc/vitalbridge"
        await self.machine.run(f"cp /share/vitalbridge.toml /share/broker-ca.pem /share/load.csv {to}/; chmod 644 {to}/*")
        await self.machine.run("mkdir -p /etc/systemd/system/vitalbridge.service.d /etc/systemd/timesyncd.conf.d")
        await self.machine.run("printf '[Service]\\nWatchdogSec=10\\n' >/etc/systemd/system/vitalbridge.service.d/trial.conf")
        await self.machine.run("printf '[Time]\\nNTP=10.0.2.2\\n' >/etc/systemd/timesyncd.conf.d/trial.conf; sync")
        await self.machine.run("systemctl daemon-reload; systemctl restart systemd-timesyncd vitalbridge")
        await self.ready()

    async def arrives(self):
        began = time.monotonic()
        await self.watch()
        _, data = await self.dashboard.next("heart_rate", 0)
        while data.get("source_id", data.get("source")) not in ("strap", None):
            _, data = await self.dashboard.next("heart_rate", time.monotonic())
        ok("a sensor over the real bluetoothd arrives at a WebSocket client outside the machine", began)
        began = time.monotonic()
        of_strap = lambda backend: any("strap" in topic for topic in backend.topics)
        await self.backend.until("the strap", of_strap, READING_LIMIT)
        ok("and at a Mosquitto outside the machine, over TLS", began)

    async def is_well(self):
        began = time.monotonic()
        synchronised = "timedatectl show -p NTPSynchronized --value"
        await self.machine.until("the clock is synchronised", synchronised, "yes", START_LIMIT)
        said = await self.machine.run("vitalbridge doctor --json")
        text, _, code = said.rpartition("\n")
        findings = json.loads(text)["findings"]
        for finding in findings:
            say(f"   {finding['level']:8} {finding['area']:14} {finding['message']}")
        assert code == "0", [finding for finding in findings if finding["level"] in ("warning", "error")]
        ok("doctor is green", began)

    async def is_watched(self):
        began = time.monotonic()
        pid = (await self.machine.run("systemctl show vitalbridge -p MainPID --value")).splitlines()[0]
        await self.machine.run(f"kill -STOP {pid}")
        await self.machine.until("it is started anew", "systemctl show vitalbridge -p NRestarts --value", "1", START_LIMIT)
        await self.ready()
        assert "atchdog" in await self.machine.run("journalctl -b --no-pager -u vitalbridge | grep -i watchdog")
        ok("a daemon that hangs is ended by the watchdog and started anew", began)

    async def stored(self):
        """Every event that is in the store, as (epoch, seq). The service is stopped for it."""
        await self.machine.run("systemctl stop vitalbridge")
        await self.machine.run("cp /var/lib/vitalbridge/vitals.db /share/vitals.db; chmod 644 /share/vitals.db; sync")
        with sqlite3.connect(f"file:{self.machine.share / 'vitals.db'}?immutable=1", uri=True) as database:
            epochs = database.execute("SELECT first_seq, name FROM epoch ORDER BY id").fetchall()
            seqs = [row[0] for row in database.execute("SELECT seq FROM reading UNION ALL SELECT seq FROM event")]
            assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        found = set()
        for seq in seqs:
            of = [name for first, name in epochs if first <= seq]
            found.add((of[-1], seq))
        return found

    def promised(self):
        """What was reported durable: what the broker has, and what dashboards saw up to `durable_through`."""
        epoch, through = self.dashboard.durable
        seen = {(of, seq) for of, seq in self.dashboard.seen if of == epoch and seq <= through}
        return set(self.backend.arrived) | seen

    async def survives_a_reboot(self):
        began = time.monotonic()
        before = self.promised()
        token = (await self.machine.run("cat /var/lib/vitalbridge/token.secret | sha256sum")).split()[0]
        await self.machine.run("sync; systemctl --no-block reboot")
        await self.machine.ended(START_LIMIT)
        await self.boot()
        await self.ready()
        assert token in await self.machine.run("sha256sum </var/lib/vitalbridge/token.secret")
        missing = before - await self.stored()
        assert before and not missing, (len(before), sorted(missing)[:10])
        await self.machine.run("systemctl start vitalbridge")
        await self.ready()
        await self.watch()
        await self.dashboard.next("heart_rate", time.monotonic())
        ok(f"a reboot keeps everything: {len(before)} events, the secret, the certificate; readings go on", began)

    async def survives_the_plug(self):
        began = time.monotonic()
        self.backend.arrived.clear()
        await asyncio.sleep(LOAD_S)
        await self.machine.off()
        before = self.promised()
        rate = len(before) / LOAD_S
        await self.boot()
        await self.ready()
        missing = before - await self.stored()
        assert len(before) > 100 and not missing, (len(before), sorted(missing)[:10])
        ok(f"the plug was pulled during load ({rate:.0f} events/s): none of {len(before)} that were reported durable is lost", began)


async def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vitalbridge-vm-") as folder:
        trial = Trial(Path(folder))
        machine = trial.machine
        shutil.copyfile(PACKAGE, machine.share / "vitalbridge.deb")
        try:
            time_server, _ = await TimeServer.start()
            await trial.backend.start()
            start = time.monotonic()
            await trial.boot()
            ok(f"Debian for arm64 has booted: {await machine.run('uname -r')}, BlueZ {await machine.run('bluetoothctl --version')}", start)
            await trial.install()
            await trial.configure()
            await trial.arrives()
            await trial.is_well()
            await trial.is_watched()
            await trial.watch()
            await trial.survives_a_reboot()
            await trial.survives_the_plug()
            say(f"\n{len(passed)} passed in {(time.monotonic() - began) / 60:.1f} minutes")
        except BaseException:
            say("--- console\n" + (machine.folder / "console").read_text(errors="replace")[-3000:])
            if machine.writer:
                try:
                    async with asyncio.timeout(60):
                        say(await machine.run("journalctl -b --no-pager -n 80 -u vitalbridge -u bluetooth -u systemd-timesyncd"))
                except Exception as error:  # noqa: BLE001: what went wrong before is told
                    say(f"no journal: {error!r}")
            raise
        finally:
            await machine.off()
            await trial.backend.stop()
            time_server.close()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
asyncio.run(main())
