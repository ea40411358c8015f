"""Streams of chat and completions that outlive any process, while their readers come and go."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

from engines.errors import RequestTaken
from gateway.durable.ending import pack_ending
from gateway.durable.journal import DELIVERED_S, ENDED_S, Fenced, JournalAway, Lost
from gateway.durable.written import WrittenFrames
from gateway.lifecycle import Lifecycle
from gateway.replies import reply_for
from openai_compat.errors import ErrorReply
from openai_compat.responses.snapshot import Status

_COMPLETED = pack_ending(Status.COMPLETED)


class DurableStream:
    """A stream with a reader. Implements `sse.Source`.

    Read to its end, it is soon forgotten. When its reader goes it goes on unread, for who comes
    back to; where somebody has come back elsewhere, its reader here is told so.
    """

    def __init__(
        self, frames: WrittenFrames, go_on_unread: Callable[[WrittenFrames], None]
    ) -> None:
        self._frames = frames
        self._go_on_unread = go_on_unread
        self._delivered = False
        self._failed: ErrorReply | None = None

    async def frames(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._frames.frames()) as frames:
                async for some in frames:
                    yield some
            self._delivered = True
        except Fenced as fenced:
            raise RequestTaken("somebody else goes on with this stream") from fenced

    def fail(self, error: ErrorReply) -> bytes:
        self._failed = error
        return self._frames.fail(error)

    async def aclose(self) -> None:
        if self._delivered:
            await self._frames.aclose()
            await _settle(self._frames, None, DELIVERED_S)
        elif not self._frames.over:
            self._go_on_unread(self._frames)
        else:
            await _close(self._frames, self._failed)


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
        reading = asyncio.create_task(frames.unread())
        ending = asyncio.create_task(self._lifecycle.ending())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            failure = reading.exception() if reading.done() else Fenced("left")
        finally:
            ending.cancel()
            reading.cancel()
            await asyncio.gather(reading, ending, return_exceptions=True)
            frames.call.outlives_reader = True  # where it was cancelled; else nothing is left of it
            await frames.aclose()
        if not isinstance(failure, Fenced | RequestTaken):
            await _settle(frames, None if failure is None else reply_for(failure))


async def _close(frames: WrittenFrames, failed: ErrorReply | None) -> None:
    """Close a stream that was read to an end: somebody else has it, it failed, or was cut there."""
    taken = failed is not None and failed.code == "stream_taken"
    frames.call.outlives_reader = taken
    await frames.aclose()
    if not taken:
        await _settle(frames, failed)


async def _settle(
    frames: WrittenFrames, failed: ErrorReply | None, keep_s: float = ENDED_S
) -> None:
    ending = _COMPLETED if failed is None else pack_ending(Status.FAILED, failed)
    with suppress(Fenced, Lost, JournalAway):
        await frames.writer.end(ending, keep_s)
