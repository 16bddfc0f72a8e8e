"""What the package promises under a real systemd and udev: a serial adapter, pins, secrets as credentials, an update, a removal."""

import asyncio
import re
import shutil
import subprocess
import time

from dashboard import READING_LIMIT
from machine import need

DROP_IN = "/etc/systemd/system/vitalbridge.service.d"
CONFIG = "/etc/vitalbridge/vitalbridge.toml"
STATE = "/var/lib/vitalbridge"
EXAMPLES = "/usr/share/doc/vitalbridge/examples"
# The service's own cgroup: who is put into it may open the devices that the unit allows, and no other.
CGROUP = "/sys/fs/cgroup/system.slice/vitalbridge.service/cgroup.procs"
# udev, the kernel's driver and the daemon, on the emulated processor.
PLUG_LIMIT = 120
KEEP = "--force-confdef --force-confold"

SERIAL = """
[[patient]]
id = "P-4"
[[source]]
id = "oximeter"
kind = "serial"
profile = "nonin-ascii"
port = "{port}"
patient = "P-4"
"""
# The token secret as a credential; that of the broker stands in [mqtt].
SECRET = '[auth]\nsecret_file = "credential:token.secret"\n'


class PackageShows:
    """Shows of the trial in service.py, which has the machine, its sensors and what stands outside."""

    def revised(self, revision, script=None):
        """The same package, newer, with another configuration file; `script` goes into its preinst."""
        work, file = self.folder / f"revision-{revision}", self.machine.share / f"vitalbridge-{revision}.deb"
        subprocess.run(["dpkg-deb", "-R", self.package, work], check=True)
        control = work / "DEBIAN/control"
        text = re.sub(r"(?m)^(Version: .*-)\d+$", rf"\g<1>{revision}", control.read_text())
        self.version = re.search(r"(?m)^Version: (.*)$", text)[1]
        control.write_text(text)
        with (work / "etc/vitalbridge/vitalbridge.toml").open("a") as config:
            config.write(f"# of revision {revision}\n")
        if script:
            preinst = work / "DEBIAN/preinst"
            preinst.write_text(preinst.read_text().replace("set -e\n", f"set -e\n{script}\n", 1))
        # The sums are of files that were not changed; dpkg itself does not look at them.
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", work, file], check=True, capture_output=True)
        shutil.rmtree(work)
        return f"/share/{file.name}"

    async def installed(self):
        return await self.machine.run("dpkg-query -W -f '${db:Status-Abbrev}${Version}' vitalbridge")

    async def opens_a_serial_port(self):
        # The service runs before anything has been plugged in: the kernel's driver comes with the plug.
        self.parts["serial"] = SERIAL.format(port="/dev/ttyUSB0")
        await self.configure()
        await self.watch()
        began = time.monotonic()
        await self.oximeter.plug_in(self.machine.adapter)
        await self.machine.until("the adapter is there", "ls /dev/serial/by-id/", "usb-", PLUG_LIMIT)
        name = await self.machine.ask("ls /dev/serial/by-id/")
        await self.machine.until("its device is a unit of systemd", "systemctl is-active dev-ttyUSB0.device", "active", PLUG_LIMIT)
        known = await self.machine.ask("udevadm info /dev/ttyUSB0; ls -l /dev/ttyUSB0")
        for wanted in ("ID_VENDOR_ID=0403", "ID_MM_DEVICE_IGNORE=1", "TAGS=:systemd:", "root dialout"):
            need(wanted in known, f"udev does not know {wanted}: {known}")
        waited = await self.pulse(began)
        self.figures.append(("from the first plug of the USB adapter to a pulse rate at a dashboard", f"{waited:.1f} s"))
        # As the book says, by the name that stays with it.
        self.parts["serial"] = SERIAL.format(port=f"/dev/serial/by-id/{name}")
        await self.configure()
        await self.watch()
        await self.pulse(time.monotonic())
        pid = await self.shown("MainPID")
        opened = await self.machine.ask(f"ls -l /proc/{pid}/fd")
        need("/dev/ttyUSB0" in opened, f"the service has not opened it: {opened}")
        inside = f"sh -c 'echo $$ >{CGROUP}; exec head -c 1 /dev/vda'"
        said, code = await self.machine.answer(inside)
        need(code != 0 and "Operation not permitted" in said, f"the service could read the disk: {code} {said}")
        pulled = time.monotonic()
        self.oximeter.pull()
        async with asyncio.timeout(READING_LIMIT):
            while not any(at > pulled and data["source_id"] == "oximeter" for at, data in self.dashboard.states):
                await asyncio.sleep(0.1)
        began = time.monotonic()
        await self.oximeter.plug_in(self.machine.adapter)
        waited = await self.pulse(began)
        self.figures.append(("from a later plug of it to the next pulse rate at a dashboard", f"{waited:.1f} s"))
        await self.green("serial", "modem_manager")
        return f"{name}: ModemManager is told to leave it, the hardened service reads it and cannot read /dev/vda; pulled, and plugged in again"

    async def pulse(self, since):
        """Seconds until the oximeter's next number is at the dashboard; it must be one that it has sent."""
        of_oximeter = lambda data: data["metric"] == "pulse_rate" and data["source_id"] == "oximeter"
        waited, data, _ = await self.dashboard.find("the oximeter's pulse rate", of_oximeter, since)
        need(data["value"] in self.oximeter.sent and data["mode"] == "real", f"the oximeter has not sent this: {data}")
        return waited

    async def opens_a_gpio(self):
        """With the example of the package and not without it: the pins of this machine (PL061) are a gpiochip as those of a Pi."""
        inside = f"sh -c 'echo $$ >{CGROUP}; exec 3</dev/gpiochip0 && echo OPENED'"
        said = await self.machine.run(inside)
        need("Operation not permitted" in said, f"the service could use the pins without being asked to: {said}")
        await self.machine.ask(f"groupadd -r gpio; install -D -m 0644 {EXAMPLES}/gpio.conf {DROP_IN}/gpio.conf; systemctl daemon-reload")
        await self.machine.ask("systemctl restart vitalbridge")
        await self.ready()
        need(await self.machine.run(inside) == "OPENED", "the drop-in does not open the pins")
        groups = await self.machine.ask(f"grep ^Groups: /proc/{await self.shown('MainPID')}/status; getent group gpio bluetooth dialout")
        listed, *wanted = groups.splitlines()
        for line in wanted:
            need(line.split(":")[2] in listed.split(), f"the service is not in the group {line}: {listed}")
        return "the pins (/dev/gpiochip0) are closed to the service, and open with the example drop-in; it is in gpio, bluetooth and dialout"

    async def takes_its_credentials(self):
        """As docs/install.md and the example tell it; the broker takes nobody without the password."""
        old, password = self.token, self.backend.password
        self.parts["auth"] = SECRET
        self.port, self.login = self.backend.closed, 'username = "bridge"\npassword_file = "credential:mqtt.password"'
        await self.put(self.text(), "vitalbridge.toml")
        for command in (
            "install -d -m 0700 /etc/credstore /etc/credstore.encrypted",
            "head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' | install -m 0600 /dev/stdin /etc/credstore/vitalbridge.token.secret",
            f"printf %s '{password}' | systemd-creds encrypt --name=mqtt.password - /etc/credstore.encrypted/vitalbridge.mqtt.password",
            f"install -D -m 0644 {EXAMPLES}/credentials.conf {DROP_IN}/credentials.conf",
            "systemctl daemon-reload",
            "systemctl restart vitalbridge",
        ):
            await self.machine.ask(command)
        await self.ready()
        await self.machine.ask("vitalbridge check")
        self.token = await self.machine.ask("vitalbridge token issue --role admin --user trial --for 24h")
        need(await self.status_with(old) == 401, "a token of the secret of before is taken")
        await self.watch()
        _, _, name = await self.heart_rate(time.monotonic())
        await self.backend.until("a reading past the password", lambda backend: backend.arrived.get(name), READING_LIMIT)
        folder = "/run/credentials/vitalbridge.service"
        for user in ("nobody", "daemon"):
            code = (await self.machine.answer(f"setpriv --reuid {user} --clear-groups cat {folder}/token.secret"))[1]
            need(code != 0, f"{user} can read the secret")
        hidden = await self.machine.answer(f"grep -rqF '{password}' /etc /var/lib/vitalbridge")
        need(hidden[1] == 1, "the password stands on the card as it is")
        await self.green("secrets", "broker")
        return "the broker's password, encrypted for this machine, and the token secret, handed over by systemd to the service alone"

    async def is_updated(self):
        kept = f"sha256sum {CONFIG} {STATE}/token.secret {STATE}/tls-*.pem {STATE}/machine"
        files, pid = await self.machine.ask(kept), await self.shown("MainPID")
        before = await self.installed()
        await self.watch()
        await self.heart_rate(time.monotonic())

        # Given up halfway: what runs goes on, and what was installed stays.
        broken = self.revised(2, "echo broken >&2; exit 1")
        said, code = await self.machine.answer(f"dpkg {KEEP} -i {broken}")
        need(code != 0 and "broken" in said, f"the broken package was taken: {said}")
        need(await self.installed() == before, f"it is {await self.installed()} and not {before}")
        need(await self.shown("MainPID") == pid and await self.shown("ActiveState") == "active", "an update that was given up ended the service")

        # Nobody there to be asked about the configuration that was changed: unpacked, and not more.
        newer = self.revised(2)
        said, code = await self.machine.answer(f"dpkg -i {newer}")
        need(code != 0 and "conffile" in said, f"dpkg did not ask: {code} {said}")
        need(await self.shown("MainPID") == pid and await self.shown("ActiveState") == "active", "a half update ended the service")
        await self.heart_rate(time.monotonic())

        began = time.monotonic()
        await self.machine.ask(f"dpkg {KEEP} --configure vitalbridge")
        await self.ready()
        need(await self.installed() == f"ii {self.version}", f"it is {await self.installed()}")
        again = await self.shown("MainPID")
        need(again != pid and await self.shown("NRestarts") == "0", "the service was not restarted")
        need(await self.machine.ask(kept) == files, "the update changed the configuration or the secrets")
        need("of revision 2" in await self.machine.ask(f"cat {CONFIG}.dpkg-dist"), "the newer configuration is not beside it")
        seen = self.dashboard.promised()
        await self.watch()
        await self.heart_rate(time.monotonic())
        waited = time.monotonic() - began
        self.figures.append(("an update: from its configuration to a heart rate of the new process at a dashboard", f"{waited:.0f} s"))
        newest = self.version

        # A version that would not start does not end the one that runs.
        await self.machine.ask(f"cp -p {CONFIG} /root/good; echo 'colour = \"red\"' >>{CONFIG}")
        said = await self.machine.ask(f"dpkg {KEEP} -i {self.revised(3)}")
        need("NOT restarted" in said and "colour" in said, f"nobody was told why: {said}")
        need(await self.shown("MainPID") == again, "a running bridge was ended for one that cannot start")
        # Ended all the same, it is not started again and again: 78 does not get better.
        await self.machine.answer("systemctl restart vitalbridge")
        await asyncio.sleep(6)
        state = [await self.shown(name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
        need(state == ["failed", "78", "0"], f"a configuration that is refused: {state}")
        await self.machine.ask(f"cp -p /root/good {CONFIG}; systemctl restart vitalbridge")
        await self.ready()
        stored, _ = await self.stored()
        missing = seen - stored
        need(seen and not missing, f"{len(missing)} of {len(seen)} events are gone")
        return f"{before.removeprefix('ii ')} to {newest}: restarted, {len(seen)} events and all settings kept; two updates that failed ended nothing"

    async def is_removed(self):
        await self.watch()
        await self.heart_rate(time.monotonic())
        kept = f"sha256sum /etc/vitalbridge/* {STATE}/token.secret {STATE}/tls-*.pem {STATE}/machine"
        files, seen = await self.machine.ask(kept), self.dashboard.promised()
        await self.machine.ask("dpkg -r vitalbridge")
        state = await self.machine.run("systemctl is-active vitalbridge; pgrep -x vitalbridge; ls /usr/bin/vitalbridge /usr/lib/systemd/system/vitalbridge.service")
        need(state.splitlines()[0] == "inactive" and len(re.findall("cannot access", state)) == 2, f"something of it is still there: {state}")
        need(await self.machine.ask(kept) == files, "the removal changed the configuration or the secrets")
        await self.machine.ask(f"dpkg {KEEP} -i {self.revised(4)}")
        await self.ready()
        await self.watch()
        await self.heart_rate(time.monotonic())
        stored, _ = await self.stored()
        missing = seen - stored
        need(seen and not missing, f"{len(missing)} of {len(seen)} events are gone")
        await self.machine.ask("dpkg -P vitalbridge")
        left = await self.machine.run(f"ls -d /etc/vitalbridge {STATE} /usr/bin/vitalbridge /usr/share/doc/vitalbridge 2>/dev/null; "
                                      "find /etc/systemd/system -name vitalbridge.service; systemctl list-units --failed --no-legend 'vital*'")
        need(left == "", f"a purge left {left}")
        need(await self.machine.run("id -un vitalbridge") == "vitalbridge", "the user has gone")
        return f"a removal kept {len(seen)} events, configuration and secrets, which a new installation took up; a purge left nothing of them"
