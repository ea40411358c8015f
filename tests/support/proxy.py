"""A TCP proxy of a test: what it carries may be late, vanish, or be cut."""

import asyncio
import contextlib


class Proxy:
    """On a port of its own, to another; in the event loop of the test.

    `delay_s` is added to what the server answers. While `hole` is set nothing is carried, either
    way, and nobody is told. `cut` ends every connection; while `refuses`, new ones end at once.
    """

    def __init__(self, port, host="127.0.0.1"):
        self._target = host, port
        self._server = None
        self._open = set()
        self._tasks = set()
        self._passes = asyncio.Event()
        self._passes.set()
        self.delay_s = 0.0
        self.refuses = False

    @property
    def port(self):
        return self._server.sockets[0].getsockname()[1]

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self._passes.set()
        self.refuses = True
        while self._tasks:
            self.cut()
            await asyncio.wait(self._tasks, timeout=0.05)
        await self._server.wait_closed()

    @property
    def hole(self):
        return not self._passes.is_set()

    @hole.setter
    def hole(self, closed):
        if closed:
            self._passes.clear()
        else:
            self._passes.set()

    def cut(self):
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._connect(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _connect(self, reader, writer):
        if self.refuses:
            writer.transport.abort()
            return
        try:
            there_reader, there = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, there}
        try:
            await asyncio.gather(
                self._carry(reader, there, late=False), self._carry(there_reader, writer, late=True)
            )
        finally:
            self._open -= {writer, there}

    async def _carry(self, reader, writer, *, late):
        with contextlib.suppress(OSError):
            while some := await reader.read(65536):
                if late and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._passes.wait()
                writer.write(some)
                await writer.drain()
        writer.transport.abort()
