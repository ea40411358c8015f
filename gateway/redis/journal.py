"""The journal of durable calls in Redis. Implements `Journal` and `Leases` by journal.lua."""

from collections.abc import Sequence
from typing import Any

from gateway.durable.journal import (
    AT_ONCE,
    LIVE_S,
    Entry,
    Fenced,
    JournalAway,
    Lost,
    Name,
    pack_gaps,
    unpack_gaps,
)
from gateway.redis.errors import RedisUnusable
from gateway.redis.functions_port import Functions
from gateway.redis.link import Purpose, Word

LEASE_S = 3.0
FORGOTTEN_S = 300.0  # for which an owner that hangs may go on to believe that it has a call
_MOST_DUE = 16
_RUNS = ("penstock:{runs}:ends", "penstock:{runs}:wishes")


class RedisJournal:
    """The calls: a hash and a list for each, in one slot."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    async def begin(self, name: Name, record: bytes, fence: int) -> None:
        if not await self._call("begin", name, fence, _ms(LIVE_S), record):
            raise Fenced("the call has a later owner")

    async def append(self, name: Name, fence: int, at: int, chunks: Sequence[bytes]) -> None:
        _check(await self._call("append", name, fence, _ms(LIVE_S), at, *chunks))

    async def read(self, name: Name, at: int = 0, most: int = AT_ONCE) -> Entry | None:
        told = await self._call("read", name, at, most)
        if not told:
            return None
        fence, record, gaps, ending, chunks = told
        try:
            return Entry(int(fence), record, chunks, unpack_gaps(gaps), ending)
        except ValueError:
            raise JournalAway("the journal holds what cannot be read") from None

    async def claim(self, name: Name, fence: int) -> bool:
        return bool(await self._call("claim", name, fence, _ms(LIVE_S)))

    async def note_gaps(self, name: Name, fence: int, gaps: Sequence[int]) -> None:
        _check(await self._call("note", name, fence, _ms(LIVE_S), "gaps", pack_gaps(gaps)))

    async def end(self, name: Name, fence: int, ending: bytes, keep_s: float) -> None:
        _check(await self._call("note", name, fence, _ms(keep_s), "ending", ending))

    async def forget(self, name: Name) -> None:
        await self._call("forget", name, _ms(FORGOTTEN_S))

    async def _call(self, verb: str, name: Name, *args: Word) -> Any:
        keys = (f"penstock:{{{name}}}:call", f"penstock:{{{name}}}:log")
        function = f"penstock_journal_{verb}"
        return await _asked(self._functions, function, keys, args, Purpose.RECORDS)


class RedisLeases:
    """Which calls are alive: one sorted set for all."""

    def __init__(self, functions: Functions, *, lease_s: float = LEASE_S) -> None:
        self._functions = functions
        self._lease_s = lease_s

    async def renew(self, names: Sequence[Name]) -> frozenset[Name]:
        told = await self._call("renew", _ms(self._lease_s), *names)
        return frozenset(Name(name.decode()) for name in told)

    async def release(self, names: Sequence[Name]) -> None:
        if names:
            await self._call("renew", 0, *names)

    async def due(self) -> Sequence[Name]:
        return [Name(name.decode()) for name in await self._call("due", _MOST_DUE)]

    async def done(self, name: Name) -> None:
        await self._call("done", name)

    async def wish(self, name: Name) -> None:
        await self._call("wish", name, _ms(LIVE_S))

    async def _call(self, verb: str, *args: Word) -> Any:
        function = f"penstock_runs_{verb}"
        return await _asked(self._functions, function, _RUNS, args, Purpose.REGISTRY)


async def _asked(
    functions: Functions, function: str, keys: Sequence[str], args: Sequence[Word], purpose: Purpose
) -> Any:
    try:
        return await functions.call(function, keys, args, purpose=purpose)
    except RedisUnusable as error:
        raise JournalAway("Redis keeps no records now") from error


def _check(told: int) -> None:
    if told == 0:
        raise Fenced("the call has a later owner")
    if told < 0:
        raise Lost("the call is not in the journal")


def _ms(seconds: float) -> int:
    return int(seconds * 1e3)
