"""Streams of chat and completions that outlive any process, while their readers come and go."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

from engines.errors import EngineUnavailable, RequestTaken
from gateway.durable.ending import pack_ending
from gateway.durable.journal import DELIVERED_S, Fenced, JournalAway
from gateway.durable.written import WrittenFrames
from gateway.lifecycle import Lifecycle
from gateway.replies import reply_for
from openai_compat.errors import ErrorReply
from openai_compat.responses.snapshot import Status

_RESUME_GAP = "stream_resume_gap"  # the code of a place behind all that is known
_COMPLETED = pack_ending(Status.COMPLETED)


class DurableStream:
    """A stream with a reader. Implements `sse.Source`.

    Read to its end, it is soon forgotten. When its reader goes it goes on unread, for who comes
    back to; where somebody has come back elsewhere, its reader here is told so. One that this
    gateway cannot go on with, since it ends, is cut: whoever comes back gets the rest.
    """

    def __init__(
        self, frames: WrittenFrames, go_on_unread: Callable[[WrittenFrames], None]
    ) -> None:
        self._frames = frames
        self._go_on_unread = go_on_unread
        self._delivered = False

    async def frames(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._frames.frames()) as frames:
                async for some in frames:
                    yield some
            self._delivered = True
        except Fenced as fenced:
            raise RequestTaken("somebody else goes on with this stream") from fenced

    def fail(self, error: ErrorReply) -> bytes:
        if isinstance(self._frames.failure, EngineUnavailable):
            return b""
        return self._frames.fail(error)

    async def aclose(self) -> None:
        if self._delivered:
            await self._frames.aclose()
            with suppress(Fenced, JournalAway):
                await self._frames.writer.end(_COMPLETED, DELIVERED_S)
        elif not self._frames.over:
            self._frames.call.note()
            self._go_on_unread(self._frames)
        else:
            ending = await _closed(self._frames)
            with suppress(Fenced, JournalAway):
                if ending is not None:
                    await self._frames.writer.end(ending)


class Unread:
    """The streams that go on unread in this process."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._going: set[asyncio.Task[None]] = set()

    def add(self, frames: WrittenFrames) -> None:
        """Read a stream to its end, or leave it to its worker and the journal in a drain."""
        task = asyncio.create_task(self._go_on(frames))
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    async def close(self) -> None:
        """Leave what still goes on."""
        for task in self._going:
            task.cancel()
        await asyncio.gather(*self._going, return_exceptions=True)

    async def _go_on(self, frames: WrittenFrames) -> None:
        going = asyncio.create_task(_read_to_its_end(frames))
        ending = asyncio.create_task(self._lifecycle.ending())
        try:
            await asyncio.wait({going, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            going.cancel()
            await asyncio.gather(going, ending, return_exceptions=True)
            frames.call.outlives_reader = True  # where it was cut short; else nothing is left of it
            await frames.aclose()


async def _read_to_its_end(frames: WrittenFrames) -> None:
    with suppress(Exception):  # told by `failure`
        await frames.unread()
    ending = await _closed(frames)
    if ending is not None:
        with suppress(Fenced):
            await frames.writer.settle(ending)


async def _closed(frames: WrittenFrames) -> bytes | None:
    """Close a stream that is over, and how it has ended; None where it may be gone on with.

    That is where somebody else has it, where it was the engine that failed it (nobody needs to be
    told of that who comes back when there is another), and where it was its reader's place.
    """
    failure = frames.failure
    reply = None if failure is None else reply_for(failure)
    left = isinstance(failure, Fenced | RequestTaken)
    frames.call.outlives_reader = left
    await frames.aclose()
    if left or (reply is not None and (reply.retryable or reply.code == _RESUME_GAP)):
        return None
    return _COMPLETED if reply is None else pack_ending(Status.FAILED, reply)
