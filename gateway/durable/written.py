"""Frames of a durable call: nobody is told what is not written down.

    engine --> renderer --> held back --> the journal has their tokens --> whoever reads

Tokens are gathered for a tenth of a second, or until there are eight: what a reader waits for them,
and at most one command for as many. While the journal is away frames go out all the same, as those
of any call; what they told is written down when it is back.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace

from engines.api import TokenEvent
from gateway.dispatch import Call
from gateway.durable.journal import ENDED_S, Fenced, Journal, JournalAway, Lost, Owned
from gateway.durable.token_log import TokenLog
from openai_compat.errors import ErrorReply
from openai_compat.job import Job, Rendered, Renderer, Usage

GATHER_S = 0.1
GATHER_TOKENS = 8
_AGAIN_S = 0.5  # after the journal was away
_AT_ONCE = 1000  # chunks in one command
_MOST_HELD = 64  # frames that are to be written down
_MOST_TOLD_BYTES = 256 << 10

_log = logging.getLogger("penstock.durable")


class LoggedRenderer:
    """Implements `Renderer` over another one: what it is fed goes to the log."""

    def __init__(self, inner: Renderer, log: TokenLog) -> None:
        self._inner = inner
        self._log = log

    def begin(self) -> bytes:
        return self._inner.begin()

    def feed(self, request: int, event: TokenEvent) -> Rendered:
        self._log.add(request, event)
        rendered = self._inner.feed(request, event)
        for choice in rendered.ended:
            self._log.end(request, choice)
        return rendered

    def finish(self) -> bytes:
        return self._inner.finish()

    def fail(self, error: ErrorReply) -> bytes:
        return self._inner.fail(error)

    def fold(self) -> bytes:
        return self._inner.fold()

    @property
    def usage(self) -> Usage:
        return self._inner.usage


class Writer:
    """Writes the log of one call into the journal, in order."""

    def __init__(
        self,
        journal: Journal,
        owned: Owned,
        log: TokenLog,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = owned.name
        self.fence = owned.fence
        self.log = log
        self._journal = journal
        self._record = owned.record
        self._written = len(log.chunks)
        self._gaps = owned.gaps
        self._noted = True  # whether the journal has these
        self._clock = clock
        self._away_until = 0.0

    def logged(self, job: Job) -> Job:
        """The job with a renderer that keeps the log."""
        return replace(job, renderer=LoggedRenderer(job.renderer, self.log))

    async def enter(self) -> None:
        """Enter the call. Raises JournalError."""
        self._written, self._noted = 0, not self._gaps
        await self._journal.begin(self.name, self._record, self.fence)

    async def gap(self) -> None:
        """Note that it goes on from the log alone, before any more is written. Raises Fenced."""
        self._gaps += (self.log.length,)
        self._noted = False
        await self.write()

    async def write(self) -> bool:
        """Write what is not written; False while the journal is away. Raises Fenced."""
        self.log.cut()
        try:
            await self._try(self._append)
        except JournalAway:
            return False
        return True

    async def settle(self, ending: bytes) -> None:
        """Write the rest and how it ended; waits while the journal is away. Raises Fenced."""
        while True:
            try:
                return await self.end(ending)
            except JournalAway:
                await asyncio.sleep(_AGAIN_S)

    async def end(self, ending: bytes, keep_s: float = ENDED_S) -> None:
        """Write the rest and how it ended, once. Raises Fenced, JournalAway."""

        async def write_all() -> None:
            await self._append()
            await self._journal.end(self.name, self.fence, ending, keep_s)

        self.log.cut()
        await self._try(write_all)

    async def forget(self) -> None:
        """Take the call out of the journal, if it is there to be asked."""
        with suppress(JournalAway):
            await self._journal.forget(self.name)

    async def _try(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write, also where the journal has lost the call. Raises Fenced, JournalAway."""
        if self._clock() < self._away_until:
            raise JournalAway("it was away a moment ago")
        try:
            try:
                await write()
            except Lost:
                _log.warning("a durable call was lost by the journal, and is written once more")
                await self.enter()
                await write()
        except (JournalAway, Lost) as error:
            self._away_until = self._clock() + _AGAIN_S
            raise JournalAway("not all of the call is written") from error

    async def _append(self) -> None:
        if not self._noted:
            await self._journal.note_gaps(self.name, self.fence, self._gaps)
            self._noted = True
        chunks = self.log.chunks
        while self._written < len(chunks):
            some = chunks[self._written : self._written + _AT_ONCE]
            await self._journal.append(self.name, self.fence, self._written, some)
            self._written += len(some)


class WrittenFrames:
    """The frames of a call, each told when its tokens are written down. Implements `sse.Source`.

    The call is read by a task of its own, so it can go on without a reader. `frames` raises Fenced
    where another owner has the call.
    """

    def __init__(self, call: Call, writer: Writer) -> None:
        self.call = call
        self.writer = writer
        self._held: list[bytes] = []  # not written down yet
        self._writing: list[bytes] = []  # of what is being written
        self._told = b""  # for the reader to take
        self._read = True
        self._last = False
        self._news = asyncio.Event()  # there is something to write, or no more of it
        self._ready = asyncio.Event()  # there is something to tell, or it is over
        self._taken = asyncio.Event()
        self._room = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def frames(self) -> AsyncGenerator[bytes, None]:
        pump = self._begin()
        while True:
            await self._ready.wait()
            self._ready.clear()
            frames, self._told = self._told, b""
            self._taken.set()
            last = self._last  # known with the last frames, so that who has these has all
            if frames:
                yield frames
            if last or pump.done():
                break
        if not last:
            pump.result()

    def take(self) -> bytes:
        """What is held back: for who ends the call before."""
        told, held = self._told, [*self._writing, *self._held]
        self._told, self._writing, self._held = b"", [], []
        return told + b"".join(held)

    async def unread(self) -> None:
        """Go on to the end without a reader. Raises what reading raises."""
        self._read, self._told = False, b""
        self._taken.set()
        await self._begin()

    @property
    def over(self) -> bool:
        """Whether all of it is written, or no more of it can be."""
        return self._pump is not None and self._pump.done()

    @property
    def failure(self) -> BaseException | None:
        """Why no more of it can be written, once it is over; none: all of it is."""
        if self._pump is None or not self._pump.done() or self._pump.cancelled():
            return None
        return self._pump.exception()

    def fail(self, error: ErrorReply) -> bytes:
        """What was held back is told only by who may write it: others may tell it otherwise."""
        held = b"" if isinstance(self.failure, Fenced) else self.take()
        return held + self.call.fail(error)

    async def stop(self) -> None:
        """Read no more of the call. Idempotent."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})

    async def aclose(self) -> None:
        try:
            await self.stop()
        finally:
            await self.call.aclose()

    def _begin(self) -> "asyncio.Task[None]":
        if self._pump is None:
            self._pump = asyncio.create_task(self._write())
        return self._pump

    async def _write(self) -> None:
        """Read, gather, write down, tell."""
        reading = asyncio.create_task(self._read_on())
        reading.add_done_callback(lambda _: self._news.set())
        try:
            over = False
            while not over:
                over = await self._gather(reading)
                # What is read while this is written has tokens that are not.
                self._writing, self._held = self._held, []
                await self.writer.write()
                if self._read:
                    self._told += b"".join(self._writing)
                self._writing = []
                self._last = over and reading.exception() is None
                self._room.set()
                self._ready.set()
                while self._read and len(self._told) > _MOST_TOLD_BYTES:  # its reader is slow
                    self._taken.clear()
                    await self._taken.wait()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            asyncio.get_running_loop().call_soon(self._ready.set)  # when this task is done
        reading.result()

    async def _read_on(self) -> None:
        async with aclosing(self.call.frames()) as frames:
            async for some in frames:
                self._held.append(some)
                self._news.set()
                if len(self._held) >= _MOST_HELD:  # the engine merges what waits for us
                    self._room.clear()
                    await self._room.wait()

    async def _gather(self, reading: "asyncio.Task[None]") -> bool:
        """Wait for something to tell; whether it is the last of it."""
        log, deadline = self.writer.log, 0.0
        while not reading.done():
            now = time.monotonic()
            if (self._held and not log.waits) or (log.waits and not log.chunks):
                return False  # there is nothing to write for it, or it is the first
            if log.waits:
                deadline = deadline or now + GATHER_S
            if log.tokens >= GATHER_TOKENS or 0 < deadline <= now:
                return False
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline - now if deadline else None):
                    await self._news.wait()
        return True
