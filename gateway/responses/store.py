"""Where responses are kept: the port, and the store in the memory of this process."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from openai_compat.responses.stored import Key, StoredResponse

_EVENT_OVERHEAD_BYTES = 48  # of a bytes object and its place in a list
_EVENT_BYTES = 1024  # of an event without the response in it
_EVENTS_AT_LEAST = 4  # with the response in them: created, queued, in_progress, the last
MAX_RESPONSES = 65_536


class StoreFull(Exception):  # noqa: N818 - what is so, as at every call site
    """There is no room that may be made: what fills it is still being generated."""


class ResponseStore(Protocol):
    """Keeps responses, each for its tenant. A value that was given is never changed."""

    async def put(self, response: StoredResponse) -> None:
        """Add a response, or replace one and keep its events. Raises StoreFull, changing nothing.

        One that is live stays until it is replaced or deleted.
        """

    async def append(self, key: Key, events: Sequence[bytes]) -> None:
        """Add events to a response that is there. Raises StoreFull, changing nothing."""

    async def get(self, key: Key) -> StoredResponse | None:
        """The response with its events up to now."""

    async def delete(self, key: Key) -> bool:
        """Forget a response. False when there is none."""

    async def drop(self, key: Key) -> None:
        """Forget a response that is live here: another process goes on with it."""

    async def close(self) -> None:
        """End; nothing is put any more."""


@dataclass(slots=True)
class _Entry:
    response: StoredResponse
    log: list[bytes]
    log_bytes: int
    used: float  # when it was put or fetched last

    def size(self, more: int = 0) -> int:
        """Bytes it takes with so many more of events.

        A live one holds from the start what its first events and its failure will need: whatever
        fills the store later, it can begin, and say that it has failed.
        """
        events = self.log_bytes + more
        if self.response.status.live:
            events = max(events, _EVENTS_AT_LEAST * len(self.response.body) + _EVENT_BYTES)
        return self.response.size + events


class MemoryResponseStore:
    """Bounded by bytes and by count. Implements ResponseStore.

    A response goes when nobody has used it for `ttl_s`. When room is needed, the finished one goes
    that was used longest ago; live ones are never taken. To use is to put, to fetch or to continue.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        ttl_s: float,
        clock: Callable[[], float],
        max_responses: int = MAX_RESPONSES,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_responses = max_responses
        self._ttl_s = ttl_s
        self._clock = clock
        self._live: dict[Key, _Entry] = {}
        self._finished: OrderedDict[Key, _Entry] = OrderedDict()  # longest unused first
        self._live_bytes = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._live) + len(self._finished)

    async def put(self, response: StoredResponse) -> None:
        self._expire()
        key = response.key
        before = self._live.get(key) or self._finished.get(key)
        log = list(response.events) if before is None else before.log
        entry = _Entry(replace(response, events=()), log, _log_bytes(log), self._clock())
        size = entry.size()
        self._check_room(size, before, key)
        self._remove(key)
        if response.status.live:
            self._live[key] = entry
            self._live_bytes += size
        else:
            self._finished[key] = entry
        self.bytes += size
        self._make_room()

    async def append(self, key: Key, events: Sequence[bytes]) -> None:
        entry = self._live[key]
        more = _log_bytes(events)
        grown = entry.size(more) - entry.size()
        if self._live_bytes + grown > self._max_bytes:
            raise StoreFull(self._told())
        entry.log += events
        entry.log_bytes += more
        self._live_bytes += grown
        self.bytes += grown
        self._make_room()

    async def get(self, key: Key) -> StoredResponse | None:
        self._expire()
        entry = self._live.get(key)
        if entry is None:
            entry = self._finished.get(key)
            if entry is None:
                return None
            entry.used = self._clock()
            self._finished.move_to_end(key)
        return replace(entry.response, events=entry.log)

    async def delete(self, key: Key) -> bool:
        self._expire()
        return self._remove(key)

    async def drop(self, key: Key) -> None:
        self._remove(key)

    async def close(self) -> None:
        """Nothing outlives the process."""

    def _check_room(self, size: int, before: _Entry | None, key: Key) -> None:
        """Whether it fits beside the live ones: the others can be made to go."""
        bytes_left = self._max_bytes - self._live_bytes
        count_left = self._max_responses - len(self._live)
        if before is not None and key in self._live:
            bytes_left += before.size()
            count_left += 1
        if size > bytes_left or count_left < 1:
            raise StoreFull(self._told())

    def _told(self) -> str:
        return (
            f"{len(self._live)} responses that are being generated hold {self._live_bytes} of"
            f" {self._max_bytes} bytes (--response-store-bytes)"
        )

    def _make_room(self) -> None:
        while self.bytes > self._max_bytes or len(self) > self._max_responses:
            self._remove(next(iter(self._finished)))

    def _expire(self) -> None:
        oldest = self._clock() - self._ttl_s
        while self._finished:
            key, entry = next(iter(self._finished.items()))
            if entry.used > oldest:
                return
            self._remove(key)

    def _remove(self, key: Key) -> bool:
        entry = self._live.pop(key, None)
        if entry is not None:
            self._live_bytes -= entry.size()
        else:
            entry = self._finished.pop(key, None)
        if entry is None:
            return False
        self.bytes -= entry.size()
        return True


def _log_bytes(events: Sequence[bytes]) -> int:
    return sum(len(event) + _EVENT_OVERHEAD_BYTES for event in events)
