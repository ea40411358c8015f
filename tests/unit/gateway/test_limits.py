"""Quotas: one suite for those who keep count, in memory and in a real Redis; what clients see."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.cross_origin import EXPOSED
from gateway.limits import (
    LIMIT_HEADERS,
    Quota,
    Spent,
    Standing,
    Verdict,
    duration,
    limit_headers,
    permit,
)
from gateway.memory_limiter import MemoryLimiter
from gateway.redis.errors import RedisDown, Unanswered
from gateway.redis.limiter import RedisLimiter, _keys
from gateway.redis.link import Purpose, RedisLink
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from openai_compat.errors import RateLimited
from tests.support.redis_server import BINARY, redis_server

TENANT = b"\x01\x02"
SLOW = Quota(tokens_per_minute=60)  # one a second: what a test itself takes does not matter
NARROW = Quota(max_concurrent=2)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class InMemory:
    """A limiter whose time a test moves."""

    def __init__(self):
        self.clock = Clock()
        self.limiter = MemoryLimiter(self.clock)

    async def wait(self, seconds):
        self.clock.now += seconds

    async def empty(self):
        return not self.limiter._accounts


class Patient:
    """A link that gives no call up: a slow machine is not a Redis that is down."""

    def __init__(self, client):
        self.client = client

    async def call(self, function, keys, args, *, purpose, hurried=False):
        assert purpose is Purpose.LIMITS
        return await self.client.fcall(function, len(keys), *keys, *args)


class InRedis:
    """The same; there time passes for a key when all that it holds is moved back."""

    def __init__(self, client, link):
        self.client, self.link = client, link
        self.clock = Clock()
        self.limiter = RedisLimiter(link, MemoryLimiter(Clock()), lease_s=3600, clock=self.clock)

    async def wait(self, seconds):
        await self.told()
        self.clock.now += seconds
        owed, leases = _keys(TENANT)
        if (full_at := await self.client.get(owed)) is not None:
            await self.client.set(owed, repr(float(full_at) - seconds * 1e6), keepttl=True)
        for lease, ends in await self.client.zrange(leases, 0, -1, withscores=True):
            await self.client.zadd(leases, {lease: ends - seconds * 1e6})

    async def told(self):
        await asyncio.gather(*self.limiter._settling)

    async def empty(self):
        """Nothing is in flight, and nothing is owed any more or it ends by itself."""
        await self.told()
        owed, leases = _keys(TENANT)
        lasting = await self.client.pttl(owed)
        return not await self.client.exists(leases) and lasting != -1


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if BINARY is None:
        pytest.skip("no redis-server here; apt-get install redis-server")
    with redis_server(tmp_path_factory.mktemp("redis"), users=True) as server:
        asyncio.run(set_up(Secret(server.deploy_url)))
        yield server


@pytest.fixture(params=["memory", "redis"])
def opened(request):
    """A function that opens a world of this kind, empty."""
    if request.param == "memory":
        return in_memory
    server = request.getfixturevalue("server")
    return lambda: in_redis(server)


@asynccontextmanager
async def in_memory():
    yield InMemory()


@asynccontextmanager
async def in_redis(server):
    server.cli("FLUSHDB")
    async with (
        Redis.from_url(server.url) as allowed,
        Redis(port=server.port, username="root", password="root") as client,
    ):
        world = InRedis(client, Patient(allowed))
        yield world
        await world.limiter.close()


def told(verdict):
    return (verdict.spent, verdict.standing.in_flight, verdict.standing.tokens_left)


def run(opened, scenario):
    async def inside():
        async with opened() as world:
            await scenario(world, world.limiter)

    asyncio.run(asyncio.wait_for(inside(), 30))


def test_tokens_are_reserved_until_a_minute_is_spent(opened):
    """All that a call may use counts from its beginning."""

    async def scenario(_, limiter):
        assert told(await limiter.reserve(TENANT, SLOW, 40)) == (None, 1, 20)
        assert told(await limiter.reserve(TENANT, SLOW, 20)) == (None, 2, 0)
        refused = await limiter.reserve(TENANT, SLOW, 10)
        assert told(refused) == (Spent.TOKENS, 2, 0)
        assert refused.retry_after_s == pytest.approx(10, abs=1)
        assert refused.standing.refill_s == pytest.approx(60, abs=1)

    run(opened, scenario)


def test_what_was_not_used_comes_back(opened):
    """At the end of a call, at once."""

    async def scenario(world, limiter):
        held = await limiter.reserve(TENANT, SLOW, 60)
        limiter.settle(held.grant, 15)
        await world.wait(0)
        assert told(await limiter.reserve(TENANT, SLOW, 40)) == (None, 1, 5)

    run(opened, scenario)


def test_spent_tokens_come_back_at_their_rate(opened):
    """And the time that a client is told is when there are enough."""

    async def scenario(world, limiter):
        held = await limiter.reserve(TENANT, SLOW, 60)
        limiter.settle(held.grant, 60)
        refused = await limiter.reserve(TENANT, SLOW, 30)
        assert refused.spent is Spent.TOKENS
        await world.wait(29)
        assert (await limiter.reserve(TENANT, SLOW, 30)).spent is Spent.TOKENS
        await world.wait(1)
        assert told(await limiter.reserve(TENANT, SLOW, 30)) == (None, 1, 0)

    run(opened, scenario)


def test_what_has_refilled_is_not_given_back_as_well(opened):
    """Else calls that reserve and do nothing would save up minutes, to be spent at once."""

    async def scenario(world, limiter):
        idle = [await limiter.reserve(TENANT, SLOW, 60)]
        for _ in range(3):
            await world.wait(60)
            idle.append(await limiter.reserve(TENANT, SLOW, 60))
            assert idle[-1].spent is None
        for each in idle[:-1]:
            limiter.settle(each.grant, 0)
        await world.wait(0)
        assert (await limiter.reserve(TENANT, SLOW, 1)).spent is Spent.TOKENS
        await world.wait(20)
        limiter.settle(idle[-1].grant, 0)
        await world.wait(0)
        assert told(await limiter.reserve(TENANT, SLOW, 0)) == (None, 1, 60)

    run(opened, scenario)


def test_a_call_larger_than_a_minute_enters_alone_and_pays_off(opened):
    """Else it could never be served; the average is kept all the same."""

    async def scenario(world, limiter):
        held = await limiter.reserve(TENANT, SLOW, 180)
        assert told(held) == (None, 1, 0)
        limiter.settle(held.grant, 180)
        await world.wait(120)
        refused = await limiter.reserve(TENANT, SLOW, 1)
        assert (refused.spent, round(refused.retry_after_s)) == (Spent.TOKENS, 1)
        assert (await limiter.reserve(TENANT, SLOW, 500)).retry_after_s == pytest.approx(60, abs=1)
        await world.wait(60)
        assert told(await limiter.reserve(TENANT, SLOW, 500)) == (None, 1, 0)

    run(opened, scenario)


def test_calls_in_flight_are_counted(opened):
    """Whatever their tokens; each makes room when it ends."""

    async def scenario(world, limiter):
        held = [await limiter.reserve(TENANT, NARROW, 10**9) for _ in range(3)]
        assert [each.spent for each in held] == [None, None, Spent.REQUESTS]
        limiter.settle(held[0].grant, 0)
        await world.wait(0)
        assert told(await limiter.reserve(TENANT, NARROW, 1)) == (None, 2, 0)

    run(opened, scenario)


def test_one_key_does_not_count_for_another(opened):
    """Also not anonymous callers for any key."""

    async def scenario(_, limiter):
        for tenant in (TENANT, b"other", b""):
            assert told(await limiter.reserve(tenant, Quota(60, 1), 60)) == (None, 1, 0)
            assert (await limiter.reserve(tenant, Quota(60, 1), 60)).spent is Spent.REQUESTS

    run(opened, scenario)


# A token in ten seconds, and times of five: what an example itself takes decides nothing.
STEADY = Quota(tokens_per_minute=6, max_concurrent=3)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 9)),
        st.tuples(st.just("settle"), st.integers(0, 12)),
        st.tuples(st.just("wait"), st.integers(1, 60).map(lambda halves: halves * 5.0)),
    ),
    max_size=25,
)


class Books:
    """What was let in by one limiter, and what that may have come to."""

    def __init__(self, world):
        self.world = world
        self.held = []
        self.log = []
        self.used = self.passed = 0

    async def act(self, kind, value):
        limiter = self.world.limiter
        match kind:
            case "reserve":
                verdict = await limiter.reserve(TENANT, STEADY, value)
                self.log.append(told(verdict))
                self._check(verdict)
            case "settle" if self.held:
                grant = self.held.pop(value % len(self.held))
                used = min(value, grant.tokens)
                self.used += used
                limiter.settle(grant, used)
                await self.world.wait(0)
            case "wait":
                self.passed += value
                await self.world.wait(value)

    def _check(self, verdict):
        if verdict.grant is not None:
            self.held.append(verdict.grant)
        standing = verdict.standing
        assert standing.in_flight == len(self.held) <= 3
        assert 0 <= standing.tokens_left <= 6
        assert standing.refill_s >= 0
        assert verdict.grant is not None or verdict.spent is Spent.REQUESTS or standing.refill_s > 0
        # What has ended was within a minute's burst and the rate, but for one larger than all.
        assert self.used <= 6 + self.passed / 10 + 9

    async def end(self):
        for grant in self.held:
            self.world.limiter.settle(grant, grant.tokens)
        await self.world.wait(10_000)
        verdict = await self.world.limiter.reserve(TENANT, STEADY, 0)
        assert told(verdict) == (None, 1, 6), "something is still counted"
        self.world.limiter.settle(verdict.grant, 0)
        assert await self.world.empty()


@settings(deadline=None)
@given(ACTS)
def test_counters_are_never_negative_and_come_back_to_nothing(acts):
    """Whatever is reserved, settled and waited for, in any order (I16)."""

    async def scenario(world, _):
        books = Books(world)
        for act in acts:
            await books.act(*act)
        await books.end()

    run(in_memory, scenario)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ACTS)
def test_redis_and_memory_say_the_same(server, acts):
    """Verdict for verdict: one is the other's stand-in."""

    async def scenario(world, _):
        async with in_memory() as twin:
            books = [Books(world), Books(twin)]
            for act in acts:
                for each in books:
                    await each.act(*act)
            for each in books:
                await each.end()
            assert books[0].log == books[1].log

    run(lambda: in_redis(server), scenario)


def test_two_gateways_count_together(server):
    """A key has one quota, wherever its calls come in."""

    async def scenario(world, limiter):
        other = RedisLimiter(world.link, MemoryLimiter(Clock()))
        assert told(await limiter.reserve(TENANT, Quota(60, 2), 30)) == (None, 1, 30)
        assert told(await other.reserve(TENANT, Quota(60, 2), 30)) == (None, 2, 0)
        assert (await limiter.reserve(TENANT, Quota(60, 2), 1)).spent is Spent.REQUESTS
        await other.close()

    run(lambda: in_redis(server), scenario)


def test_what_a_dead_gateway_held_ends_with_its_lease(server):
    """And a late word of it gives nothing back twice."""

    async def scenario(world, limiter):
        dead = RedisLimiter(world.link, MemoryLimiter(Clock()), lease_s=5)
        held = await dead.reserve(TENANT, Quota(60, 1), 60)
        assert (await limiter.reserve(TENANT, Quota(60, 1), 1)).spent is Spent.REQUESTS
        await world.wait(5)
        assert told(await limiter.reserve(TENANT, Quota(60, 1), 5)) == (None, 1, 0)
        dead.settle(held.grant, 0)
        await dead.close()
        assert (await limiter.reserve(TENANT, Quota(60, 9), 30)).spent is Spent.TOKENS

    run(lambda: in_redis(server), scenario)


def test_a_lease_is_renewed_while_its_call_runs(server):
    """However long that is."""

    async def scenario(world, _):
        short = RedisLimiter(world.link, MemoryLimiter(Clock()), lease_s=3)
        await short.reserve(TENANT, NARROW, 1)
        leases = _keys(TENANT)[1]
        ((_, first),) = await world.client.zrange(leases, 0, -1, withscores=True)
        for _ in range(500):
            ((_, ends),) = await world.client.zrange(leases, 0, -1, withscores=True)
            if ends > first:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("the lease was not renewed")
        await short.close()

    run(lambda: in_redis(server), scenario)


def test_what_is_sent_twice_counts_once(server):
    """A client that got no answer may ask again."""

    async def scenario(world, _):
        words = ("penstock_limit", 2, *_keys(TENANT))
        for _ in range(2):
            answer = await world.client.fcall(*words, "reserve", "a:1", 10**9, 30, 60, 5)
            assert (answer[0], answer[1]) == (b"", 1)
        assert [await world.client.fcall(*words, "settle", "a:1", 30, 60) for _ in range(2)] == [
            1,
            0,
        ]

    run(lambda: in_redis(server), scenario)


def test_every_key_ends_by_itself(server):
    """Tenants that never come again leave nothing in Redis."""

    async def scenario(world, limiter):
        await limiter.reserve(TENANT, Quota(60, 5), 30)
        for key in _keys(TENANT):
            assert 0 < await world.client.pttl(key) <= 3_600_000

    run(lambda: in_redis(server), scenario)


class Down:
    """A Redis that gives no answer to go by."""

    async def call(self, *_, purpose, hurried):
        raise RedisDown(purpose)


def test_without_redis_each_gateway_counts_alone():
    """No call fails for it; and what was counted here is settled here."""

    async def scenario(world, local):
        limiter = RedisLimiter(Down(), local)
        held = await limiter.reserve(TENANT, Quota(60, 1), 60)
        assert told(held) == (None, 1, 0)
        assert (await limiter.reserve(TENANT, Quota(60, 1), 1)).spent is Spent.REQUESTS
        limiter.settle(held.grant, 0)
        await limiter.close()
        assert await world.empty()

    run(in_memory, scenario)


class Cut(Patient):
    """A real Redis that answers while a test lets it; what is asked may be done all the same."""

    def __init__(self, client):
        super().__init__(client)
        self.back = asyncio.Event()
        self.done_all_the_same = False

    async def call(self, function, keys, args, *, purpose, hurried=False):
        if self.back.is_set():
            return await super().call(function, keys, args, purpose=purpose)
        if self.done_all_the_same:
            await super().call(function, keys, args, purpose=purpose)
        raise Unanswered("nothing is heard of it")

    async def came_up(self):
        await self.back.wait()


@pytest.mark.parametrize("done", [True, False])
def test_redis_is_told_later_what_it_did_not_hear(server, done):
    """Else it would count calls that have ended, and refuse others for them."""

    async def scenario(world, _):
        link = Cut(world.client)
        limiter = RedisLimiter(link, MemoryLimiter(Clock()))
        link.back.set()
        held = await limiter.reserve(TENANT, Quota(60, 1), 60)
        link.back.clear()
        limiter.settle(held.grant, 0)
        link.done_all_the_same = done  # whoever asks next is counted in, and does not know it
        meanwhile = await limiter.reserve(TENANT, Quota(60, 1), 60)
        assert told(meanwhile) == (None, 1, 0)
        link.back.set()
        async with asyncio.timeout(20):
            while limiter._untold:  # noqa: ASYNC110 - a test waits for a fact
                await asyncio.sleep(0.01)
        again = await limiter.reserve(TENANT, Quota(60, 1), 60)
        assert again.spent is None
        assert again.grant.lease in limiter._held
        for each in (meanwhile, again):
            limiter.settle(each.grant, 0)
        await limiter.close()
        assert await world.empty()

    run(lambda: in_redis(server), scenario)


async def counted_there(limiter):
    """A call that Redis has counted: until it answers, calls are counted here."""
    async with asyncio.timeout(30):
        while True:
            verdict = await limiter.reserve(TENANT, Quota(60, 2), 10)
            if verdict.grant is not None and verdict.grant.lease in limiter._held:
                return verdict
            if verdict.grant is not None:
                limiter.settle(verdict.grant, 0)
            await asyncio.sleep(0.01)


def test_redis_goes_and_comes_back(tmp_path):
    """Calls go on all the while, and each is settled where it was counted."""

    async def scenario(server, link):
        await link.came_up()
        limiter = RedisLimiter(link, MemoryLimiter(Clock()))
        before = await counted_there(limiter)
        server.kill()
        during = [await limiter.reserve(TENANT, Quota(60, 2), 10) for _ in range(3)]
        assert [each.spent for each in during] == [None, None, Spent.REQUESTS]
        server.start()
        await set_up(Secret(server.url))
        for each in during[:2]:
            limiter.settle(each.grant, 0)
        assert not limiter._local._accounts
        after = await counted_there(limiter)
        assert (after.spent, after.standing.tokens_left <= 50) == (None, True)
        for each in (before, after):
            limiter.settle(each.grant, 0)
        await limiter.close()
        assert not limiter._held

    async def inside(server):
        link = RedisLink(Secret(server.url))
        link.start()
        await scenario(server, link)
        await link.close()

    if BINARY is None:
        pytest.skip("no redis-server here; apt-get install redis-server")
    with redis_server(tmp_path / "redis") as server:
        asyncio.run(set_up(Secret(server.url)))
        asyncio.run(asyncio.wait_for(inside(server), 60))


def test_a_refusal_says_what_is_spent_and_when_to_come_back():
    """429, which clients try again after the time they are told."""
    standing = Standing(Quota(600, 2), 2, 30, 57.0)
    tokens = Verdict(standing, None, Spent.TOKENS, 12.5)
    with pytest.raises(RateLimited, match="600 tokens per minute") as refused:
        permit(MemoryLimiter(Clock()), tokens)
    reply = refused.value.reply
    assert (reply.status, reply.code, reply.retryable) == (429, "rate_limit_exceeded", True)
    assert reply.retry_after_s == 12.5
    with pytest.raises(RateLimited, match="2 calls in flight"):
        permit(MemoryLimiter(Clock()), Verdict(standing, None, Spent.REQUESTS))


def test_a_permit_is_settled_once():
    """Ends meet from several sides."""

    async def scenario(world, limiter):
        first, _ = [await limiter.reserve(TENANT, SLOW, 10) for _ in range(2)]
        held = permit(limiter, first)
        held.settle(3)
        held.settle(0)
        assert (await limiter.reserve(TENANT, SLOW, 0)).standing.in_flight == 2

    run(in_memory, scenario)


def test_headers_are_those_of_openai():
    """Only of what is limited at all; all may be read by the pages that may call."""
    headers = dict(limit_headers(Standing(Quota(600, 2), 2, 30, 61.5)))
    assert headers == {
        b"x-ratelimit-limit-requests": b"2", b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"1s", b"x-ratelimit-limit-tokens": b"600",
        b"x-ratelimit-remaining-tokens": b"30", b"x-ratelimit-reset-tokens": b"1m1.5s",
    }  # fmt: skip
    assert sorted(name.decode() for name in headers) == sorted(LIMIT_HEADERS)
    assert set(LIMIT_HEADERS) <= set(EXPOSED)
    only = dict(limit_headers(Standing(Quota(0, 2), 1, 0, 0)))
    assert (set(only), only[b"x-ratelimit-reset-requests"]) == (
        {b"x-ratelimit-%s-requests" % name for name in (b"limit", b"remaining", b"reset")},
        b"0s",
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.02, "20ms"), (1, "1s"), (1.5, "1.5s"), (59.9999, "1m0s"), (360, "6m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds, text):
    """So that its clients read them."""
    assert duration(seconds) == text
