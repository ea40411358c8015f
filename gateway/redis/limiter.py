"""Quotas counted in Redis, for all gateways together; without Redis, each for itself."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import count
from time import monotonic
from typing import Any, Protocol

from gateway.limits import Grant, Limiter, Quota, Spent, Verdict
from gateway.memory_limiter import standing_of
from gateway.redis.errors import RedisDown, RedisUnusable, Unanswered
from gateway.redis.functions_port import Functions
from gateway.redis.link import Purpose, Word

_FUNCTION = "penstock_limit"
_LEASE_S = 30.0
_MOST_AT_ONCE = 500  # leases in one renewal
_TELL_AGAIN_S = 0.05
_log = logging.getLogger("penstock.limits")


class Link(Functions, Protocol):
    """What is needed of a link to Redis."""

    def came_up(self) -> Awaitable[None]:
        """Wait until it is up."""


@dataclass(frozen=True, slots=True)
class _Untold:
    """What Redis counts, or may count, of a call that is over for it."""

    grant: Grant
    left: float  # tokens to give back
    until: float  # when its lease has ended by itself
    under_way: asyncio.Future[None] | None = None  # until then it may yet be counted in


class RedisLimiter:
    """Implements `Limiter` by one atomic function, gateway/redis/functions/limits.lua.

    A call costs one round trip before it begins and one after its end. Its lease is renewed as long
    as it runs, so what a dead gateway held is free again after `lease_s`. Where Redis gives no
    answer in time `local` counts: each gateway then lets in as much as one alone would. So it does
    for a key of which Redis has not heard yet what ended meanwhile, and would count that still.
    """

    def __init__(
        self,
        functions: Link,
        local: Limiter,
        *,
        lease_s: float = _LEASE_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._functions = functions
        self._clock = clock
        self._local = local
        self._lease_s = lease_s
        self._name = secrets.token_hex(8)
        self._numbers = count()
        self._held: dict[str, Grant] = {}  # by lease
        self._settling: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._untold: dict[str, _Untold] = {}  # by lease
        self._telling: asyncio.Task[None] | None = None

    async def reserve(self, tenant: bytes, quota: Quota, tokens: int) -> Verdict:
        if any(each.grant.tenant == tenant for each in self._untold.values()):
            return await self._local.reserve(tenant, quota, tokens)
        grant = Grant(tenant, quota, tokens, f"{self._name}:{next(self._numbers)}")
        asked = (tokens, quota.tokens_per_minute, quota.max_concurrent)
        try:
            answer = await self._call(tenant, "reserve", grant.lease, self._lease_us, *asked)
        except RedisUnusable as error:
            _log.debug("limits are counted here alone: %s", type(error).__name__)
            if isinstance(error, Unanswered):
                self._tell_later(grant, tokens, error.over)
            return await self._local.reserve(tenant, quota, tokens)
        spent, in_flight, owed_us, retry_us = answer
        standing = standing_of(quota, int(in_flight), int(owed_us) / 1e6)
        if word := _text(spent):
            return Verdict(standing, None, Spent(word), int(retry_us) / 1e6)
        grant = replace(grant, refilled_at=self._clock() + standing.refill_s)
        self._held[grant.lease] = grant
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
        return Verdict(standing, grant)

    def settle(self, grant: Grant, used: int) -> None:
        """Tell Redis when there is time: nobody waits for it."""
        if self._held.pop(grant.lease, None) is None:
            self._local.settle(grant, used)
            return
        task = asyncio.create_task(self._settle(grant, grant.unused(used, self._clock())))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def close(self) -> None:
        """Let what was settled be told, and renew nothing more."""
        await asyncio.gather(*self._settling)
        for task in (self._renewing, self._telling):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._local.close()

    async def _settle(self, grant: Grant, left: float) -> None:
        try:
            await self._give_back(grant, left)
        except RedisDown:
            self._tell_later(grant, left)

    async def _give_back(self, grant: Grant, left: float) -> None:
        """Raises RedisDown."""
        try:
            rate = grant.quota.tokens_per_minute
            await self._call(grant.tenant, "settle", grant.lease, f"{left:.6f}", rate)
        except RedisDown:
            raise
        except RedisUnusable:
            return  # nor will it next time: the lease ends by itself, and what is spent refills

    def _tell_later(
        self, grant: Grant, left: float, under_way: asyncio.Future[None] | None = None
    ) -> None:
        until = monotonic() + self._lease_s
        self._untold[grant.lease] = _Untold(grant, left, until, under_way)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        """Tell Redis what has ended without it, as soon as it is there."""
        while self._untold:
            await self._functions.came_up()
            some = list(self._untold.values())[:_MOST_AT_ONCE]
            await asyncio.gather(*(self._tell_of(one) for one in some))
            if self._untold:
                await asyncio.sleep(_TELL_AGAIN_S)
        self._telling = None

    async def _tell_of(self, one: _Untold) -> None:
        if one.under_way is not None:
            await asyncio.wait({one.under_way})  # else it might be counted in after this
        if monotonic() < one.until:
            try:
                refilling = one.grant.unused(0, self._clock())
                await self._give_back(one.grant, min(one.left, refilling))
            except RedisDown:
                return
        del self._untold[one.grant.lease]

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            await self.renew()

    async def renew(self) -> None:
        """Hold every call that runs for another `lease_s`, if it is still counted."""
        by_tenant: dict[bytes, list[str]] = {}
        for grant in self._held.values():
            by_tenant.setdefault(grant.tenant, []).append(grant.lease)
        for tenant, leases in by_tenant.items():
            for first in range(0, len(leases), _MOST_AT_ONCE):
                some = leases[first : first + _MOST_AT_ONCE]
                with contextlib.suppress(RedisUnusable):
                    await self._call(tenant, "renew", self._lease_us, *some)

    async def _call(self, tenant: bytes, *words: Word) -> Any:
        """All verbs may come twice: a lease is taken once, and given back once."""
        return await self._functions.call(
            _FUNCTION,
            _keys(tenant),
            words,
            purpose=Purpose.LIMITS,
            hurried=words[0] == "reserve",  # nobody waits for the others
        )

    @property
    def _lease_us(self) -> int:
        return round(self._lease_s * 1e6)


def _keys(tenant: bytes) -> tuple[str, str]:
    """In one slot of a cluster; anonymous callers share an account as well."""
    key = f"penstock:{{{tenant.hex() or '-'}}}:limit"
    return key, f"{key}:leases"


def _text(word: str | bytes) -> str:
    return word.decode() if isinstance(word, bytes) else word
