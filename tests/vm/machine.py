"""The virtual arm64 machine of the trials, with a shell on a port of it."""

import asyncio
import socket

# The emulated processor is some ten times slower than that of a Raspberry Pi, and this machine may be busy.
BOOT_LIMIT = 600
ASK_LIMIT = 240


def say(words):
    print(words, flush=True)


class Failed(Exception):
    """Something does not hold."""


def need(holds, words):
    if not holds:
        raise Failed(words)


class Machine:
    """The virtual machine, with a shell on a port of it."""

    def __init__(self, vm, folder, drive):
        """`vm` has the kernel; `drive` are qemu's arguments of the disk; `folder/share` is seen by both."""
        self.vm = vm
        self.folder = folder
        self.drive = drive
        self.share = folder / "share"
        self.share.mkdir()
        # Who connects to it plugs a USB serial adapter in, and speaks from its other end.
        self.adapter = folder / "adapter"
        self.process = self.writer = None
        self.count = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    async def boot(self, hci):
        """Switches it on; `hci` is the Unix socket of its radio. Returns when its shell answers."""
        arguments = [
            "qemu-system-aarch64", "-machine", "virt,gic-version=3", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024",
            "-accel", "tcg,thread=multi", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio",
            "-kernel", self.vm / "vmlinuz", "-initrd", self.vm / "initrd",
            "-append", "console=ttyAMA0 root=/dev/vda rw quiet panic=-1 mitigations=off",
            *self.drive, "-device", "virtio-rng-pci",
            "-virtfs", f"local,path={self.share},mount_tag=share,security_model=none",
            "-chardev", f"socket,id=hci,path={hci}", "-device", "pci-serial,chardev=hci",
            "-chardev", f"socket,id=shell,path={self.folder / 'shell'},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=shell,name=trial",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:8080", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "qemu-xhci,id=usb", "-chardev", f"socket,id=adapter,path={self.adapter},server=on,wait=off",
            "-device", "usb-serial,chardev=adapter,bus=usb.0",
        ]
        for socket_ in (self.folder / "shell", self.adapter):
            socket_.unlink(missing_ok=True)
        with (self.folder / "console").open("ab") as console:
            self.process = await asyncio.create_subprocess_exec(
                *map(str, arguments), stdin=asyncio.subprocess.DEVNULL, stdout=console, stderr=console
            )
        try:
            await asyncio.wait_for(self.reach(), BOOT_LIMIT)
        except TimeoutError:
            raise Failed(f"the machine's shell does not answer within {BOOT_LIMIT} s") from None

    async def reach(self):
        """Waits for the shell. What is written before it is there is lost."""
        while not (self.folder / "shell").exists():
            need(self.process.returncode is None, "qemu ended at once")
            await asyncio.sleep(0.1)
        self.reader, self.writer = await asyncio.open_unix_connection(self.folder / "shell", limit=2**24)
        while True:
            try:
                return await asyncio.wait_for(self.answer("true"), 2)
            except TimeoutError:
                continue

    async def attach(self):
        """The radio is plugged in."""
        await self.run("setsid btattach -B /dev/ttyS0 -P h4 >/dev/null 2>&1 &")

    async def answer(self, command):
        """Runs a command there; gives what it writes, and its exit code."""
        self.count += 1
        begin, end = f"+{self.count}+", f"-{self.count}-"
        self.writer.write(f"echo {begin}; {{ {command}\n}} </dev/null 2>&1; printf '\\n{end}%s\\n' $?\n".encode())
        lines, is_ours = [], False
        while True:
            line = await self.reader.readline()
            if not line:
                raise ConnectionError(f"the machine ended while it ran: {command}")
            text = line.decode(errors="replace").rstrip("\r\n")
            if text.startswith(end):
                return "\n".join(lines).strip(), int(text.removeprefix(end))
            if is_ours:
                lines.append(text)
            # What a command that was given up has still to say comes before.
            is_ours = is_ours or text == begin

    async def run(self, command):
        """What a command writes, whether it succeeds or not."""
        return (await self.answer(command))[0]

    async def ask(self, command, limit=ASK_LIMIT):
        """What a command writes that has to succeed."""
        try:
            text, code = await asyncio.wait_for(self.answer(command), limit)
        except TimeoutError:
            raise Failed(f"`{command}` has not ended within {limit} s") from None
        need(code == 0, f"`{command}` ended with {code}: {text}")
        return text

    async def until(self, what, command, wanted, limit=60):
        """Runs a command again and again until this, or one of these, is in what it writes, and gives that."""
        answer, wanted = "", (wanted,) if isinstance(wanted, str) else wanted
        try:
            async with asyncio.timeout(limit):
                while not any(words in answer for words in wanted):
                    answer = await self.run(command)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Failed(f"{what}: not within {limit} s; `{command}` says: {answer}") from None
        say(f"   {what}")
        return answer

    async def ended(self, limit):
        """Waits until the machine has ended by itself."""
        try:
            await asyncio.wait_for(self.process.wait(), limit)
        except TimeoutError:
            raise Failed(f"the machine has not ended within {limit} s") from None
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

    async def tell(self, units):
        """What there is to know of it when something went wrong."""
        console = self.folder / "console"
        if console.exists():
            say("--- console\n" + console.read_text(errors="replace")[-3000:])
        if self.writer:
            try:
                said = self.run("journalctl -b --no-pager -n 120 " + " ".join(f"-u {unit}" for unit in units))
                say("--- journal\n" + await asyncio.wait_for(said, 60))
            except (TimeoutError, ConnectionError) as error:
                say(f"no journal: {error!r}")
