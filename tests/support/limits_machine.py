"""A Hypothesis state machine over who keeps count of quotas: in memory, and in a real Redis (I16).

Calls are let in, end, end twice, end late, and are lost with their gateway, on a clock that the
machine moves, backwards too. A model in exact fractions says each verdict. Whatever happens, no
counter is below nothing or above what it counts to, and all of them come back.
"""

import asyncio
from dataclasses import dataclass
from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from redis.asyncio import Redis

from gateway.limits import ROUNDING, Grant, Quota, Spent
from gateway.memory_limiter import MemoryLimiter
from gateway.redis import library
from gateway.redis.limiter import RedisLimiter, _keys
from gateway.redis.link import Purpose

LEASE_S = 30
_HAIR_S = Fraction(1, 10_000)  # less than what Redis counts in, and sums of floats
TENANTS = (b"\x01", b"")  # of a key, and of all callers where there are none
CLOCK = "penstock:clock"
_TIME = "redis.call('TIME')"
_LASTING = "math.ceil(owed / 1000)"


def on_a_clock(source: str) -> str:
    """The functions with a clock that a test moves; nothing else of them is changed.

    But that what is owed lasts an hour longer: Redis lets it go by its own clock.
    """
    assert source.count(_TIME) >= 1
    assert source.count(_LASTING) == 1
    source = source.replace(_TIME, f"{{tonumber(redis.call('GET', '{CLOCK}')), 0}}")
    return source.replace(_LASTING, f"3600000 + {_LASTING}")


class Clock:
    """Whole seconds that pass, or come again, when the machine says so."""

    def __init__(self):
        self.now = 100_000

    def __call__(self):
        return float(self.now)


class InMemory:
    """Where calls are lost with who counts them, so that none is lost alone."""

    leases = False

    def __init__(self):
        self.clock = Clock()
        self.limiter = MemoryLimiter(self.clock)
        self._runner = asyncio.Runner()

    def reserve(self, tenant, quota, tokens):
        return self._runner.run(self.limiter.reserve(tenant, quota, tokens))

    def settle(self, grant, used):
        self.limiter.settle(grant, used)

    def move(self, seconds):
        self.clock.now += seconds

    def counted(self, tenant):
        """Calls in flight."""
        account = self.limiter._accounts.get(tenant)
        return 0 if account is None else len(account.leases)

    def empty(self):
        return not self.limiter._accounts

    def close(self):
        self._runner.close()


class InRedis:
    """The functions of a library in a server that no other test uses."""

    leases = True

    def __init__(self, server, source=None):
        self.clock = Clock()
        self._runner = asyncio.Runner()
        self._client = Redis(port=server.port)
        self._run(self._begin(on_a_clock(source or library.source())))
        local = MemoryLimiter(self.clock)  # has nothing to do, for Redis always answers here
        self.limiter = RedisLimiter(self, local, lease_s=LEASE_S, clock=self.clock)

    async def _begin(self, source):
        await self._client.flushdb()
        await self._client.function_load(source, replace=True)
        await self._client.set(CLOCK, self.clock.now)

    async def call(self, function, keys, args, *, purpose, hurried=False):
        """As a link to Redis does, but that it waits for each answer, hurried or not."""
        del hurried
        assert purpose is Purpose.LIMITS
        return await self._client.fcall(function, len(keys), *keys, *args)

    def _run(self, coroutine):
        return self._runner.run(coroutine)

    def reserve(self, tenant, quota, tokens):
        return self._run(self.limiter.reserve(tenant, quota, tokens))

    def settle(self, grant, used):
        async def settled():
            if grant.lease in self.limiter._held:
                self.limiter.settle(grant, used)
            else:  # the last words of a gateway that was given up, or the same ones again
                await self.limiter._settle(grant, grant.unused(used, self.clock()))
            await asyncio.gather(*self.limiter._settling)

        self._run(settled())

    def renew(self):
        self._run(self.limiter.renew())

    def lose(self, grant):
        del self.limiter._held[grant.lease]

    def ask_again(self, grant):
        """The answer to a call that was sent twice, for the first answer did not come."""
        quota = grant.quota
        words = (grant.lease, LEASE_S * 10**6, grant.tokens, *_numbers(quota))
        return self._run(self.limiter._call(grant.tenant, "reserve", *words))

    def move(self, seconds):
        self.clock.now += seconds
        self._run(self._client.set(CLOCK, self.clock.now))

    def counted(self, tenant):
        """Calls in flight, those whose lease is over left out."""
        return self._run(self._client.zcount(_keys(tenant)[1], f"({self.clock.now * 10**6}", "inf"))

    def empty(self):
        return not self._run(self._client.keys("*:limit*"))

    def close(self):
        self._run(self.limiter.close())
        self._run(self._client.aclose())
        self._runner.close()


def _numbers(quota: Quota):
    return quota.tokens_per_minute, quota.max_concurrent


@dataclass
class Account:
    """What the model knows of a tenant."""

    ends: dict[str, int | None]  # of each lease in flight; None: never by itself
    full_at: Fraction = Fraction(0)  # long ago
    even: bool = False  # whether nothing is owed, or what rounding has left

    def owe(self, now: int, seconds: Fraction):
        self.even = abs(seconds) < _HAIR_S
        self.full_at = now + seconds if seconds > 0 else Fraction(0)


def _evens(accounts):
    return (account.even for account in accounts.values())


class LimitsMachine(RuleBasedStateMachine):
    """Rules are what gateways do, and time does to them. A subclass says who counts."""

    def open_world(self):
        """Who counts."""
        return InMemory()

    @initialize(per_minute=st.sampled_from([0, 6, 7, 60, 90]), most=st.sampled_from([0, 1, 2, 3]))
    def build(self, per_minute, most):
        self.quota = Quota(per_minute, most)
        self.world = self.open_world()
        self.accounts = {tenant: Account({}) for tenant in TENANTS}
        self.largest = self.back = 0  # tokens of one call; seconds that came again
        self.held: list[Grant] = []  # by gateways that live
        self.lost: list[Grant] = []  # with their gateways, and those that have ended

    @property
    def now(self):
        return self.world.clock.now

    def _account(self, tenant):
        """A tenant's account, without the calls whose lease is over."""
        account = self.accounts[tenant]
        account.ends = {
            lease: ends for lease, ends in account.ends.items() if ends is None or ends > self.now
        }
        return account

    def _rounds(self):
        """Whether a token is no whole number of microseconds."""
        rate = self.quota.tokens_per_minute
        return rate and 60_000_000 % rate

    def _seconds(self, tokens):
        rate = self.quota.tokens_per_minute
        return Fraction(tokens) * 60 / rate if rate else Fraction(0)

    def _expected(self, account, asked):
        """What is spent, by the rule."""
        owed = max(Fraction(0), account.full_at - self.now)
        if self.quota.max_concurrent and len(account.ends) >= self.quota.max_concurrent:
            return Spent.REQUESTS, owed
        if self.quota.tokens_per_minute and owed > 0 and owed + asked > 60:
            return Spent.TOKENS, owed
        return None, owed + asked

    def _decided_by_rounding(self, account, asked):
        """Whether it is a millionth of a second that a call comes too early."""
        owed = account.full_at - self.now
        return min(abs(owed), abs(owed + asked - 60)) < _HAIR_S

    @rule(tenant=st.sampled_from(TENANTS), tokens=st.integers(0, 15))
    def reserve(self, tenant, tokens):
        account = self._account(tenant)
        spent, owed = self._expected(account, self._seconds(tokens))
        verdict = self.world.reserve(tenant, self.quota, tokens)
        if verdict.spent != spent and self._decided_by_rounding(account, self._seconds(tokens)):
            spent = verdict.spent
            owed = max(Fraction(0), account.full_at - self.now)
            owed += 0 if spent else self._seconds(tokens)
        assert verdict.spent == spent
        assert (verdict.grant is None) == (spent is not None)
        if verdict.grant is not None:
            account.owe(self.now, owed)
            account.ends[verdict.grant.lease] = self.now + LEASE_S if self.world.leases else None
            self.held.append(verdict.grant)
            self.largest = max(self.largest, tokens)
        self._check(verdict, account, owed)

    def _check(self, verdict, account, owed):
        standing, quota = verdict.standing, self.quota
        most = quota.max_concurrent or len(account.ends)
        assert 0 <= standing.in_flight == len(account.ends) <= most
        assert 0 <= standing.tokens_left <= quota.tokens_per_minute
        assert 0 <= standing.refill_s <= 60 + self._seconds(self.largest) + self.back
        assert abs(standing.refill_s - owed) < 1e-4
        if verdict.spent is Spent.TOKENS:
            assert 0 < verdict.retry_after_s <= 60 + self._seconds(self.largest) + self.back

    @precondition(lambda self: self.held)
    @rule(data=st.data(), used=st.integers(0, 20))
    def settle(self, data, used):
        """A call ends, in time or after its lease."""
        grant = data.draw(st.sampled_from(self.held))
        self.held.remove(grant)
        self._settle(grant, used)
        self.lost.append(grant)

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), used=st.integers(0, 20))
    def settle_again(self, data, used):
        """What has ended ends once more, or a gateway that was given up has a last word."""
        self._settle(data.draw(st.sampled_from(self.lost)), used)

    def _settle(self, grant, used):
        account = self._account(grant.tenant)
        if grant.lease in account.ends:
            del account.ends[grant.lease]
            refilling = Fraction(grant.refilled_at) - self.now + self._seconds(Fraction(ROUNDING))
            back = min(self._seconds(grant.tokens - used), refilling)
            owed = max(Fraction(0), account.full_at - self.now)
            account.owe(self.now, owed - max(Fraction(0), back))
        self.world.settle(grant, used)
        assert self.world.counted(grant.tenant) == len(account.ends)

    @precondition(lambda self: self.held and self.world.leases)
    @rule(data=st.data())
    def lose(self, data):
        """A gateway dies: nobody renews its lease, nor says how it ended."""
        grant = data.draw(st.sampled_from(self.held))
        self.held.remove(grant)
        self.lost.append(grant)
        self.world.lose(grant)

    @precondition(lambda self: self.held and self.world.leases)
    @rule(data=st.data())
    def ask_again(self, data):
        """What was counted once is not counted twice, or is let in anew where its lease is over."""
        grant = data.draw(st.sampled_from(self.held))
        if self.accounts[grant.tenant].ends.get(grant.lease, 0) <= self.now:
            return
        account = self._account(grant.tenant)
        _, in_flight, owed_us, _ = self.world.ask_again(grant)
        assert in_flight == len(account.ends)
        assert abs(int(owed_us) / 1e6 - max(0, account.full_at - self.now)) < 1e-4

    @precondition(lambda self: self.world.leases)
    @rule()
    def renew(self):
        """Those that live hold on to what they still have."""
        for grant in self.held:
            account = self._account(grant.tenant)
            if grant.lease in account.ends:
                account.ends[grant.lease] = self.now + LEASE_S
        self.world.renew()

    @rule(seconds=st.sampled_from([1, 5, 10, 29, 30, 31, 60, 200]))
    def wait(self, seconds):
        self.world.move(seconds)

    # What rounding decides would be seconds then: who owes nothing has no time to be full at.
    @precondition(lambda self: not self._rounds() or not any(_evens(self.accounts)))
    @rule(seconds=st.integers(1, 45))
    def time_comes_again(self, seconds):
        """A clock is put back, or another machine's counts now."""
        self.back += seconds
        self.world.move(-seconds)

    def teardown(self):
        if not hasattr(self, "world"):
            return
        try:
            self._all_comes_back()
        finally:
            self.world.close()

    def _all_comes_back(self):
        """Everything ends or expires, and then nothing is counted (I16)."""
        for grant in self.held:
            self._settle(grant, grant.tokens)
        self.world.move(LEASE_S + 61 + self.back + int(self._seconds(self.largest)) * 8)
        self.world.move(10_000)
        for tenant in TENANTS:
            verdict = self.world.reserve(tenant, self.quota, 0)
            assert verdict.spent is None
            standing = verdict.standing
            assert (standing.in_flight, standing.refill_s) == (1, 0.0)
            assert standing.tokens_left == self.quota.tokens_per_minute
            self.world.settle(verdict.grant, 0)
        assert self.world.empty(), "something is remembered"
