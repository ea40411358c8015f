"""Who is there: workers and gateways, each with a lease that it renews, by the clock of Redis.

    Registry  the calls; see functions/registry.lua
    Lease     keeps one member registered, whatever becomes of Redis

The epoch of a lease is its fencing token: a lease that has ended never comes back, its holder gets
a new one with a greater epoch, and so does whoever takes its name.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from time import monotonic
from typing import Any

import msgspec

from gateway.redis.errors import RedisUnusable
from gateway.redis.link import Purpose, RedisLink

LEASE_MS = 5_000
RENEW_S = 1.5
HELD_S = 4.0  # by the holder's own clock: less than the lease, so that it knows first
_RETRY_S = 0.25
_ROW_BYTES = 4096

_log = logging.getLogger("penstock.registry")


class Role(StrEnum):
    """What a member is."""

    WORKER = "worker"
    GATEWAY = "gateway"


class State(StrEnum):
    """Whether it takes new work."""

    UP = "up"
    DRAINING = "draining"


class Facts(msgspec.Struct, frozen=True):
    """What a member tells of itself; JSON in Redis. Fields that are unknown here are ignored."""

    address: str
    model: str
    version: str
    state: State = State.UP


@dataclass(frozen=True, slots=True)
class Member:
    """One that has a lease."""

    name: str
    epoch: int
    facts: Facts


def registry_keys(role: str) -> tuple[str, str, str]:
    """In one slot: the members, the ends of their leases, and the last epoch."""
    tag = f"penstock:{{registry:{role}}}"
    return f"{tag}:members", f"{tag}:ends", f"{tag}:epoch"


class Registry:
    """The members of one role. Every call raises RedisUnusable."""

    def __init__(self, link: RedisLink, role: Role) -> None:
        self._link = link
        self._keys = registry_keys(role)
        self._life = secrets.token_hex(8)

    async def register(self, name: str, facts: Facts, before: int) -> int:
        """A new lease; its epoch, or 0 where another process has had the name since `before`."""
        told = msgspec.json.encode(facts)
        return int(await self._call("register", name, self._life, told, LEASE_MS, before))

    async def renew(self, member: Member) -> bool:
        """Renew a lease, and tell what has changed; whether it had not ended."""
        told = msgspec.json.encode(member.facts)
        return bool(
            await self._call("renew", member.name, self._life, told, LEASE_MS, member.epoch)
        )

    async def leave(self, name: str, epoch: int) -> bool:
        """End a lease now; whether it was there."""
        return bool(await self._call("leave", name, epoch))

    async def members(self) -> list[Member]:
        """All whose leases go on; who tells what cannot be read is left out."""
        rows = await self._call("members")
        pairs = zip(rows[::2], rows[1::2], strict=True)
        return [member for name, row in pairs if (member := _read(name, row)) is not None]

    async def _call(self, verb: str, *args: str | bytes | int) -> Any:
        return await self._link.call(f"penstock_{verb}", self._keys, args, purpose=Purpose.REGISTRY)


def _read(name: bytes, row: bytes) -> Member | None:
    epoch, _, rest = row.partition(b" ")
    _, _, facts = rest.partition(b" ")
    try:
        if len(row) > _ROW_BYTES:
            raise ValueError("too long")  # noqa: TRY301 - one place for what is wrong
        return Member(name.decode(), int(epoch), msgspec.json.decode(facts, type=Facts))
    except (ValueError, msgspec.MsgspecError):
        _log.warning("a member of the registry cannot be read, and is left out")
        return None


class Lease:
    """One member's place in the registry. `keep` runs for as long as it should be there."""

    def __init__(
        self,
        registry: Registry,
        name: str,
        facts: Facts,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._member = Member(name, 0, facts)
        self._until = 0.0
        self._news = asyncio.Event()  # there is something to tell at once
        self._fenced = False

    @property
    def epoch(self) -> int:
        """Of the last lease that it had; 0 before the first."""
        return self._member.epoch

    @property
    def held(self) -> bool:
        """Whether the lease is surely there: by this clock, without asking anybody."""
        return self._clock() < self._until

    def drain(self) -> None:
        """Tell that it takes no new work, at once."""
        facts = msgspec.structs.replace(self._member.facts, state=State.DRAINING)
        self._member = replace(self._member, facts=facts)
        self._news.set()

    async def keep(self) -> None:
        """Register and renew for ever; through any time without Redis."""
        while True:
            rest_s = await self._tell()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), rest_s)

    async def leave(self) -> None:
        """Give the lease back, if that can be done; else it ends by itself."""
        self._until = 0.0
        with suppress(RedisUnusable):
            await self._registry.leave(self._member.name, self.epoch)

    async def _tell(self) -> float:
        """Renew, or get a new lease; after how many seconds to come again."""
        self._news.clear()
        began = self._clock()
        try:
            held = bool(self.epoch) and await self._registry.renew(self._member)
            if not held:
                self._until = 0.0
                held = await self._begin()
        except RedisUnusable:
            return _RETRY_S
        if held:
            self._until = began + HELD_S  # from before it was asked: Redis counts from later
        return RENEW_S

    async def _begin(self) -> bool:
        name = self._member.name
        epoch = await self._registry.register(name, self._member.facts, self.epoch)
        if epoch:
            self._member = replace(self._member, epoch=epoch)
            _log.info("registered as %s with epoch %d", name, epoch)
        elif not self._fenced:
            _log.error("another process is registered as %s: this one is not", name)
        self._fenced = not epoch
        return bool(epoch)
