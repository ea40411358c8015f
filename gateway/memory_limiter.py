"""Quotas counted in the memory of one process. Pure: the clock is given."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from gateway.limits import MINUTE_S, Grant, Quota, Spent, Standing, Verdict


@dataclass(slots=True)
class _Account:
    full_at: float = -math.inf  # when nothing will be spent any more: GCRA's theoretical arrival
    leases: set[str] = field(default_factory=set)

    def owe(self, now: float, seconds: float) -> None:
        self.full_at = now + seconds if seconds > 0 else -math.inf


class MemoryLimiter:
    """Implements `Limiter` for a single gateway, or for one that cannot reach Redis.

    The same rules as gateway/redis/functions/limits.lua, line by line; one suite tests both.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._accounts: dict[bytes, _Account] = {}  # as many as there are keys
        self._leases = count()

    async def reserve(self, tenant: bytes, quota: Quota, tokens: int) -> Verdict:
        """Never waits, so nothing comes between looking and counting."""
        now = self._clock()
        account = self._accounts.setdefault(tenant, _Account())
        spent, retry_after_s = None, 0.0
        owed_s = max(0.0, account.full_at - now)
        asked_s = _seconds(quota, tokens)
        if quota.max_concurrent and len(account.leases) >= quota.max_concurrent:
            spent = Spent.REQUESTS
        elif quota.tokens_per_minute and owed_s > 0 and owed_s + asked_s > MINUTE_S:
            spent = Spent.TOKENS
            retry_after_s = min(owed_s, owed_s + asked_s - MINUTE_S)
        grant = None
        if spent is None:
            owed_s += asked_s
            account.owe(now, owed_s)
            grant = Grant(tenant, quota, tokens, str(next(self._leases)), now + owed_s)
            account.leases.add(grant.lease)
        return Verdict(standing_of(quota, len(account.leases), owed_s), grant, spent, retry_after_s)

    def settle(self, grant: Grant, used: int) -> None:
        account, now = self._accounts.get(grant.tenant), self._clock()
        if account is None or grant.lease not in account.leases:
            return
        account.leases.remove(grant.lease)
        owed_s = max(0.0, account.full_at - now)
        account.owe(now, owed_s - _seconds(grant.quota, grant.unused(used, now)))
        if not account.leases and account.full_at <= now:
            del self._accounts[grant.tenant]

    async def close(self) -> None:
        """Nothing is held outside."""


def standing_of(quota: Quota, in_flight: int, owed_s: float) -> Standing:
    """A standing from the time until nothing is spent any more."""
    left = quota.tokens_per_minute * (1 - owed_s / MINUTE_S)
    return Standing(quota, in_flight, max(0, math.floor(left + 1e-6)), owed_s)


def _seconds(quota: Quota, tokens: float) -> float:
    """In how long the quota gives so many tokens."""
    return tokens * MINUTE_S / quota.tokens_per_minute if quota.tokens_per_minute else 0.0
