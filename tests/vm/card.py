"""The machine's SD card: an NBD server with a write cache that forgets when the power goes.

Killing qemu alone would lose less than a power cut: what the machine has written, flushed or not, would be in a file of
the host. A real card keeps writes in its own memory until it is told to flush. Here, of what was written after the last
flush each page is kept or lost by a coin, whatever came before or after it.
"""

import asyncio
import os
import random
import struct

# Cards write pages of this size or more at once; ext4 writes in these blocks too.
PAGE = 4096

# The NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md): fixed newstyle negotiation, simple replies.
NEWSTYLE = b"NBDMAGICIHAVEOPT"
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_MAGIC, OPT_REPLY = 0x49484156454F5054, 0x3E889045565A9
OPT_EXPORT_NAME, OPT_ABORT, OPT_INFO, OPT_GO = 1, 2, 6, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, 2**31 + 1
INFO_EXPORT = 0
HAS_FLAGS, SEND_FLUSH, SEND_FUA = 1, 4, 8
REQUEST, REPLY = 0x25609513, 0x67446698
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1
EINVAL = 22


class Card:
    """A disk in a file, and what has been written to it and not flushed."""

    def __init__(self, image, socket, seed):
        self.socket = socket
        self.random = random.Random(seed)
        self.file = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.file).st_size
        self.cache = {}
        self.flushes = 0

    async def start(self):
        self.server = await asyncio.start_unix_server(self.serve, self.socket, limit=2**26)

    async def stop(self):
        self.server.close()
        os.close(self.file)

    def power_cut(self):
        """Each page that was not flushed is kept or lost. Gives how many were kept and lost."""
        kept = 0
        for page, data in self.cache.items():
            if self.random.getrandbits(1):
                os.pwrite(self.file, data, page * PAGE)
                kept += 1
        lost = len(self.cache) - kept
        self.cache.clear()
        return kept, lost

    def flush(self):
        for page, data in self.cache.items():
            os.pwrite(self.file, data, page * PAGE)
        self.cache.clear()
        self.flushes += 1

    def page(self, page):
        cached = self.cache.get(page)
        return cached if cached is not None else os.pread(self.file, PAGE, page * PAGE)

    def read(self, offset, length):
        data = bytearray(os.pread(self.file, length, offset))
        if self.cache:
            for page in range(offset // PAGE, (offset + length + PAGE - 1) // PAGE):
                cached = self.cache.get(page)
                if cached is not None:
                    begin = max(offset, page * PAGE)
                    end = min(offset + length, (page + 1) * PAGE)
                    data[begin - offset : end - offset] = cached[begin - page * PAGE : end - page * PAGE]
        return data

    def write(self, offset, data, is_through):
        at = 0
        while at < len(data):
            page, within = divmod(offset + at, PAGE)
            piece = data[at : at + PAGE - within]
            if len(piece) < PAGE:
                whole = bytearray(self.page(page))
                whole[within : within + len(piece)] = piece
                piece = bytes(whole)
            if is_through:
                # Written to the card itself; nothing older may come over it later.
                self.cache.pop(page, None)
                os.pwrite(self.file, piece, page * PAGE)
            else:
                self.cache[page] = piece
            at += min(PAGE - within, len(data) - at)

    async def serve(self, reader, writer):
        try:
            await self.negotiate(reader, writer)
            await self.transmit(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            # The machine was switched off.
            pass
        finally:
            writer.close()

    async def negotiate(self, reader, writer):
        writer.write(NEWSTYLE + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
        await reader.readexactly(4)
        export = struct.pack(">QH", self.size, HAS_FLAGS | SEND_FLUSH | SEND_FUA)
        while True:
            magic, option, length = struct.unpack(">QII", await reader.readexactly(16))
            await reader.readexactly(length)
            if magic != OPT_MAGIC or option == OPT_ABORT:
                raise ConnectionError("no client of NBD")
            if option == OPT_EXPORT_NAME:
                writer.write(export)
                return

            def reply(kind, data=b""):
                writer.write(struct.pack(">QIII", OPT_REPLY, option, kind, len(data)) + data)

            if option not in (OPT_INFO, OPT_GO):
                reply(REP_ERR_UNSUP)
                continue
            reply(REP_INFO, struct.pack(">H", INFO_EXPORT) + export)
            reply(REP_ACK)
            if option == OPT_GO:
                return

    async def transmit(self, reader, writer):
        while True:
            head = await reader.readexactly(28)
            magic, flags, command, handle, offset, length = struct.unpack(">IHHQQI", head)
            if magic != REQUEST or command == DISCONNECT:
                return
            data, error = b"", 0
            if command == READ:
                data = self.read(offset, length)
            elif command == WRITE:
                self.write(offset, await reader.readexactly(length), flags & FUA)
            elif command == FLUSH:
                self.flush()
            else:
                error = EINVAL
            writer.write(struct.pack(">IIQ", REPLY, error, handle) + data)
            await writer.drain()
