"""The events of a response in the background, from a number on, to whoever follows it.

Here: those that this process keeps, then live. Elsewhere: the log of a response is told again,
event for event, and then what is added to it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from gateway.durable.ending import unpack_ending
from gateway.durable.journal import Entry, Journal, JournalAway, Name
from gateway.durable.record import RunRecord, unpack_record
from gateway.durable.responses import Relower
from gateway.durable.token_log import read_chunk
from gateway.responses.kept_call import split
from gateway.responses.runs import Runs
from gateway.responses.store import ResponseStore
from openai_compat.errors import ErrorReply, RequestRejected
from openai_compat.responses.frames import Events, error_event
from openai_compat.responses.lower import ResponseJob
from openai_compat.responses.snapshot import Status
from openai_compat.responses.stored import Key, check_place, no_place, no_response, no_store

# Left out of the numbers of events where a response went on from its log alone: what might have
# been told behind the log, by processes that are gone, has less.
LOST_NUMBERS = 1_000_000
_AT_ONCE = 256  # events that a follower is given together
_LOOK_S = 0.2
_MISSED_S = 2.0  # for a response that its owner is writing once more


class Follower:
    """Follows a response of this process. Implements `sse.Source`.

    It holds a place and no events; the run does not notice it. Where the run leaves, `elsewhere`
    makes who follows it from a place on.
    """

    def __init__(
        self,
        key: Key,
        after: int,
        store: ResponseStore,
        runs: Runs,
        elsewhere: "Callable[[int], LogFollower] | None" = None,
    ) -> None:
        self.key = key
        self._place = after + 1
        self._store = store
        self._runs = runs
        self._elsewhere = elsewhere
        self._rest: LogFollower | None = None

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Raises NotFound when the response is deleted meanwhile, RequestRejected where the place
        is one that it never came to.
        """
        while True:
            run = self._runs.get(self.key)
            changed = None if run is None else run.changed  # before looking, so none is missed
            stored = None if run is not None and run.left else await self._store.get(self.key)
            if stored is None:
                break
            first = max(0, self._place - stored.first_event)
            events = stored.events[first : first + _AT_ONCE]
            if events:
                self._place = stored.first_event + first + len(events)
                yield b"".join(events)
            elif stored.status.live and changed is not None:
                await changed.wait()
            elif stored.status.live or not stored.events:
                break
            else:
                check_place(stored, self._place - 1)
                return
        if self._elsewhere is None:
            raise no_response()
        self._rest = self._elsewhere(self._place - 1)
        async with aclosing(self._rest.frames()) as rest:
            async for some in rest:
                yield some

    def fail(self, error: ErrorReply) -> bytes:
        if self._rest is not None:
            return self._rest.fail(error)
        return error_event(Events(first=self._place), error)

    async def aclose(self) -> None:
        """The response goes on without us."""


class LogFollower:
    """Follows a response by its log, wherever it is generated. Implements `sse.Source`."""

    def __init__(self, name: Name, after: int, journal: Journal, relower: Relower) -> None:
        self._name = name
        self._place = after + 1
        self._journal = journal
        self._relower = relower
        self._telling: _Telling | None = None
        self._entry: Entry | None = None
        self._frames = b""

    async def open(self) -> None:
        """Read what there is. Raises RequestRejected where it is not kept, or for the place."""
        if (entry := await self._seen(0)) is None:
            raise RequestRejected(
                "The events of this response are not kept any more; the response is.",
                param="stream",
                code="response_not_streamable",
            )
        await self._begin(entry)

    async def _begin(self, entry: Entry) -> None:
        self._entry = entry
        self._telling = _Telling(await self._relower(_record(entry)), self._place)
        self._frames = self._telling.begin() + self._telling.feed(entry)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Raises RequestRejected for the place, NotFound where it is gone, Unavailable."""
        if self._telling is None or self._entry is None:
            await self._begin(await self._read(0))
        telling, entry = self._telling, self._entry
        if telling is None or entry is None:
            raise no_response()
        at, frames = 0, self._frames
        while True:
            self._place = max(self._place, telling.number)
            if frames:
                yield frames
            at += len(entry.chunks)
            if not entry.chunks:
                if entry.ending:
                    break
                await asyncio.sleep(_LOOK_S)
            entry = await self._read(at)
            frames = telling.feed(entry)
        if frames := telling.end(entry.ending):
            yield frames

    async def _read(self, at: int) -> Entry:
        """What is there; a journal that was emptied has it again when its owner has seen that."""
        deadline = time.monotonic() + _MISSED_S
        while (entry := await self._seen(at)) is None:
            if time.monotonic() > deadline:
                raise no_response()
            await asyncio.sleep(_LOOK_S)
        return entry

    async def _seen(self, at: int) -> Entry | None:
        try:
            return await self._journal.read(self._name, at)
        except JournalAway as error:
            raise no_store() from error

    def fail(self, error: ErrorReply) -> bytes:
        return error_event(Events(first=self._place), error)

    async def aclose(self) -> None:
        """The response goes on without us."""


class _Telling:
    """Tells a response again from its log, for a reader who is at a number. Pure."""

    def __init__(self, job: ResponseJob, place: int) -> None:
        self._renderer = job.renderer
        self._requests = job.job.requests
        self._place = place
        self._fed = 0  # tokens
        self._gaps = 0  # that were passed

    @property
    def number(self) -> int:
        """Of the next event."""
        return self._renderer.told

    def begin(self) -> bytes:
        return self._new(0, self._renderer.begin())

    def feed(self, entry: Entry) -> bytes:
        """What chunks of the log add. Raises RequestRejected where the place is in a gap."""
        frames = []
        for chunk in entry.chunks:
            self._pass(entry.gaps)
            for request, event in read_chunk(chunk, self._requests):
                self._fed += len(event.tokens)
                number = self.number
                frames.append(self._new(number, self._renderer.feed(request, event).frames))
        if entry.ending and not entry.chunks:
            self._pass(entry.gaps)
        return b"".join(frames)

    def end(self, packed: bytes) -> bytes:
        """The events of its end. Raises RequestRejected where the place is behind the last."""
        renderer, ending, number = self._renderer, unpack_ending(packed), self.number
        if ending.status is Status.CANCELLED:
            last = renderer.cancel()
        elif ending.error is not None:
            last = renderer.fail(ending.error)
        else:
            last = renderer.finish()
        if self._place > self.number:
            raise no_place(0, self.number - 1)
        return self._new(number, last)

    def _pass(self, gaps: tuple[int, ...]) -> None:
        while self._gaps < len(gaps) and gaps[self._gaps] <= self._fed:
            last = self.number - 1
            self._renderer.skip(LOST_NUMBERS)
            self._gaps += 1
            if last + 1 < self._place < self.number:
                raise RequestRejected(
                    f"What came after event {last} was lost with the processes that told it, and"
                    f" is told anew with other numbers: go on from starting_after={last}.",
                    param="starting_after",
                    code="response_resume_gap",
                    status=409,
                )

    def _new(self, number: int, frames: bytes) -> bytes:
        """Of events that are numbered from `number`, those that the reader has not."""
        if number >= self._place or not frames:
            return frames
        return b"".join(split(frames)[self._place - number :])


def _record(entry: Entry) -> RunRecord:
    try:
        return unpack_record(entry.record)
    except ValueError:
        raise no_response() from None  # of another version: who wrote it can tell it
