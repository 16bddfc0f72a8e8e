"""A pulse oximeter at a USB serial adapter of the virtual machine: text, a line a second, as Nonin's devices send it."""

import asyncio


class Oximeter:
    """Plugged in by a connection to the machine's adapter (FTDI's, as qemu has it), and pulled by its end."""

    def __init__(self):
        # Pulse rates that the adapter was given.
        self.sent = set()
        self.is_plugged = False
        self.writer = self.task = None

    async def plug_in(self, socket):
        """Also after the machine was off: the adapter stays in it."""
        self.pull()
        self.is_plugged = True
        _, self.writer = await asyncio.open_unix_connection(socket)
        self.task = asyncio.ensure_future(self.live())

    async def live(self):
        rate = 60
        while True:
            await asyncio.sleep(1)
            # Each one differs, so that no reading is taken for another.
            rate = 60 + (rate - 59) % 60
            self.sent.add(rate)
            try:
                self.writer.write(f"SPO2=097 HR={rate:03}\r\n".encode())
                await self.writer.drain()
            except ConnectionError:
                # The machine is off.
                return

    def pull(self):
        self.is_plugged = False
        if self.task:
            self.task.cancel()
            self.writer.close()
            self.task = None
