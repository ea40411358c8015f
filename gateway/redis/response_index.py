"""The budget of stored responses in Redis: what each takes, and who goes when there is no room.

    note      this one was put just now         awaited: one command, with all that waits below
    used      this one was fetched              told by a task, many at a time
    gone      this one was deleted              the same

What is told to go is deleted by that task. Nothing here need arrive: a response that is not in the
index ends by its own time to live, or is back in it when it is used again; a row of the index whose
response is gone is the first to be named when room is needed, or ends when it was unused so long.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice

from gateway.redis.errors import RedisUnusable
from gateway.redis.link import Purpose, RedisLink, Word
from gateway.responses.store import MAX_RESPONSES

_FUNCTION = "penstock_note_responses"
_KEYS = ("penstock:{responses}:used", "penstock:{responses}:sizes")  # in one slot
_MOST_AT_ONCE = 500  # notes in one command
_CLOSE_S = 1.0


def response_key(tag: str) -> str:
    """Where a response is."""
    return f"penstock:{{{tag}}}:response"


class ResponseIndex:
    """Bounds what all gateways together keep in Redis. All should be given the same bounds."""

    def __init__(
        self,
        link: RedisLink,
        *,
        max_bytes: int,
        ttl_s: float,
        max_responses: int = MAX_RESPONSES,
    ) -> None:
        self._link = link
        self._bounds = (max(1, round(ttl_s * 1e3)), max_bytes, max_responses)
        self._notes: dict[str, int] = {}  # bytes of what was used; 0: it is gone
        self._evicted: dict[str, int] = {}  # to be told with the next note: it hurts nobody to wait
        self._surplus: dict[str, None] = {}
        self._tending: asyncio.Task[None] | None = None

    async def note(self, tag: str, size: int) -> None:
        """Count one that is about to be there. Raises RedisUnusable."""
        await self._tell({tag: size})
        self._tend_soon()

    def used(self, tag: str, size: int) -> None:
        """Of those that are there, this one goes last."""
        self._notes[tag] = size
        self._tend_soon()

    def gone(self, tag: str) -> None:
        """Its room is free."""
        self._notes[tag] = 0
        self._tend_soon()

    async def close(self) -> None:
        """Tell what waits to be told."""
        if (tending := self._tending) is not None:
            await asyncio.wait({tending}, timeout=_CLOSE_S)
            tending.cancel()

    def _tend_soon(self) -> None:
        if self._tending is None and (self._notes or self._surplus):
            self._tending = asyncio.create_task(self._tend())

    async def _tend(self) -> None:
        try:
            while self._notes or self._surplus:
                if self._notes:
                    await self._tell({})
                await self._evict()
        except RedisUnusable:  # nothing of it need be done
            self._notes.clear()
            self._surplus.clear()
        finally:
            self._tending = None

    async def _tell(self, first: dict[str, int]) -> None:
        """Send notes, with those that wait; what should go is known then."""
        notes = _taken(self._evicted) | _taken(self._notes) | first  # of one tag, the latest
        words: list[Word] = [*self._bounds]
        for pair in notes.items():
            words += pair
        named = await self._link.call(_FUNCTION, _KEYS, words, purpose=Purpose.RESPONSES)
        self._surplus |= dict.fromkeys(_texts(named))

    async def _evict(self) -> None:
        while self._surplus:
            tag = next(iter(self._surplus))
            del self._surplus[tag]
            await self._link.command("UNLINK", response_key(tag), purpose=Purpose.RESPONSES)
            self._evicted[tag] = 0


def _taken(waiting: dict[str, int]) -> dict[str, int]:
    """Some of what waits, which waits no more."""
    some = dict(islice(waiting.items(), _MOST_AT_ONCE))
    for tag in some:
        del waiting[tag]
    return some


def _texts(named: Iterable[bytes | str]) -> list[str]:
    return [tag.decode() if isinstance(tag, bytes) else tag for tag in named]
