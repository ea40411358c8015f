"""The registry on a real Redis: leases that end by its clock, and epochs that fence off."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from gateway.redis.link import RedisLink
from gateway.redis.registry import (
    HELD_S,
    LEASE_MS,
    RENEW_S,
    Facts,
    Lease,
    Member,
    Registry,
    Role,
    State,
    registry_keys,
)
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.support.proxy import Proxy
from tests.support.redis_server import needs_redis, redis_server

pytestmark = needs_redis

FACTS = Facts("h:1", "m", "0")
MEMBERS, ENDS, EPOCH = registry_keys(Role.WORKER)


@pytest.fixture
def server(tmp_path):
    """With the users that there are in production."""
    with redis_server(tmp_path / "redis", users=True) as server:
        asyncio.run(set_up(Secret(server.deploy_url)))
        yield server


@asynccontextmanager
async def linked(url):
    link = RedisLink(Secret(url))
    link.start()
    try:
        async with asyncio.timeout(10):
            await link.came_up()
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def kept(lease):
    keeping = asyncio.create_task(lease.keep())
    try:
        yield lease
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def until(condition, within_s=10):
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - a test waits for a fact
            await asyncio.sleep(0.01)


def clock(server):
    return int(server.cli("TIME").split()[0])


def expire(server, name):
    """The lease of a member ends now."""
    server.cli("ZADD", ENDS, "1", name)


def test_a_member_is_there_until_its_lease_ends(server):
    """With what it told; the lease's length is Redis' to measure."""

    async def scenario():
        async with linked(server.url) as link:
            registry = Registry(link, Role.WORKER)
            began = clock(server)
            epoch = await registry.register("a", FACTS, 0)
            assert await registry.members() == [Member("a", epoch, FACTS)]
            ends_s = int(server.cli("ZSCORE", ENDS, "a")) / 1000
            assert 0 <= ends_s - began - LEASE_MS / 1000 < 2
            assert await Registry(link, Role.GATEWAY).members() == []
            draining = Facts("h:1", "m", "0", State.DRAINING)
            assert await registry.renew(Member("a", epoch, draining))
            assert await registry.members() == [Member("a", epoch, draining)]
            expire(server, "a")
            assert await registry.members() == []
            assert server.cli("EXISTS", MEMBERS, ENDS) == "0"

    asyncio.run(scenario())


def test_a_lease_that_has_ended_never_comes_back(server):
    """Neither renewed nor left: its holder gets a new one, with a greater epoch."""

    async def scenario():
        async with linked(server.url) as link:
            registry = Registry(link, Role.WORKER)
            first = await registry.register("a", FACTS, 0)
            expire(server, "a")
            assert not await registry.renew(Member("a", first, FACTS))
            second = await registry.register("a", FACTS, first)
            assert second > first
            assert not await registry.renew(Member("a", first, FACTS))
            assert not await registry.leave("a", first)
            assert await registry.renew(Member("a", second, FACTS))
            assert await registry.leave("a", second)
            assert await registry.members() == []

    asyncio.run(scenario())


def test_of_two_processes_with_one_name_the_later_has_it(server):
    """The earlier is fenced off for as long as the later renews, and may come back after it."""

    async def scenario():
        async with linked(server.url) as link:
            old, new = Registry(link, Role.WORKER), Registry(link, Role.WORKER)
            first = await old.register("a", FACTS, 0)
            second = await new.register("a", FACTS, 0)
            assert second > first
            assert not await old.renew(Member("a", first, FACTS))
            assert await old.register("a", FACTS, first) == 0
            assert [one.epoch for one in await old.members()] == [second]
            expire(server, "a")
            assert await old.register("a", FACTS, first) > second

    asyncio.run(scenario())


def test_a_process_does_not_fence_itself_off(server):
    """Its register was done and the answer lost: it asks again with the epoch that it knows."""

    async def scenario():
        async with linked(server.url) as link:
            registry = Registry(link, Role.WORKER)
            first = await registry.register("a", FACTS, 0)
            expire(server, "a")
            unheard = await registry.register("a", FACTS, first)
            assert await registry.register("a", FACTS, first) > unheard

    asyncio.run(scenario())


@pytest.mark.parametrize("lost", ["FLUSHALL", "a clock that goes back"])
def test_epochs_only_grow(server, lost):
    """Where the last one was lost the clock is greater; where that goes back the last one is."""

    async def scenario():
        async with linked(server.url) as link:
            registry = Registry(link, Role.WORKER)
            before = await registry.register("a", FACTS, 0)
            if lost == "FLUSHALL":
                server.cli("FLUSHALL")
            else:
                before += 3600 * 1_000_000
                server.cli("SET", EPOCH, before)
            after = [await registry.register("a", FACTS, 0) for _ in range(3)]
            assert sorted({before, *after}) == [before, *after]

    asyncio.run(scenario())


def test_keys_of_the_registry_end_when_nobody_renews(server):
    """Every one of them has a time to live."""

    async def scenario():
        async with linked(server.url) as link:
            await Registry(link, Role.WORKER).register("a", FACTS, 0)
            for key in registry_keys(Role.WORKER):
                assert 0 < int(server.cli("TTL", key)) <= 24 * 3600

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "row", ["", "no row", "1 life {}", "1 life [", "x life {}", f'1 life {{"a":"{"x" * 5000}"}}']
)
def test_a_row_that_cannot_be_read_hides_nobody_else(server, row):
    """What is in Redis is what somebody else has written."""

    async def scenario():
        async with linked(server.url) as link:
            registry = Registry(link, Role.WORKER)
            epoch = await registry.register("a", FACTS, 0)
            server.cli("HSET", MEMBERS, "bad", row)
            server.cli("ZADD", ENDS, "99999999999999", "bad")
            assert await registry.members() == [Member("a", epoch, FACTS)]

    asyncio.run(scenario())


def test_a_newer_member_may_tell_more(server):
    """Fields that are unknown here are no fault."""

    async def scenario():
        async with linked(server.url) as link:
            registry = Registry(link, Role.WORKER)
            facts = '{"address":"h:1","model":"m","version":"9","more":[1]}'
            server.cli("HSET", MEMBERS, "a", f"7 life {facts}")
            server.cli("ZADD", ENDS, "99999999999999", "a")
            assert await registry.members() == [Member("a", 7, Facts("h:1", "m", "9"))]

    asyncio.run(scenario())


def test_a_kept_lease_is_there_for_longer_than_one_lasts(server):
    """Renewed thrice in its time; what changes is told at once; leaving ends it."""

    async def scenario():
        async with linked(server.url) as link:
            registry = Registry(link, Role.WORKER)
            lease = Lease(registry, "a", FACTS)
            assert not lease.held
            async with kept(lease):
                await until(lambda: lease.held)
                began, epoch = time.monotonic(), lease.epoch
                while time.monotonic() - began < LEASE_MS / 1000 + RENEW_S:
                    assert lease.held
                    assert [one.epoch for one in await registry.members()] == [epoch]
                    await asyncio.sleep(0.1)
                lease.drain()
                began = time.monotonic()
                while (await registry.members())[0].facts.state is State.UP:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                assert time.monotonic() - began < RENEW_S / 2
            await lease.leave()
            assert await registry.members() == []
            assert not lease.held

    asyncio.run(scenario())


def test_who_cannot_renew_knows_before_the_lease_ends(server):
    """By its own clock, counted from before it asked; then it gets a new lease by itself."""

    async def scenario():
        async with (
            Proxy(server.port) as proxy,
            linked(server.url.replace(str(server.port), str(proxy.port))) as link,
        ):
            lease = Lease(Registry(link, Role.WORKER), "a", FACTS)
            async with kept(lease):
                await until(lambda: lease.held)
                first = lease.epoch
                proxy.hole = True
                await until(lambda: not lease.held, within_s=HELD_S + 0.5)
                assert server.cli("ZCARD", ENDS) == "1"
                ends_s = int(server.cli("ZSCORE", ENDS, "a")) / 1000
                assert ends_s > clock(server)  # not even ended yet
                expire(server, "a")
                proxy.hole = False
                await until(lambda: lease.held)
                assert lease.epoch > first

    asyncio.run(scenario())


def test_an_emptied_redis_is_filled_again(server):
    """By those who are there, within the time of a renewal."""

    async def scenario():
        async with linked(server.url) as link:
            registry = Registry(link, Role.WORKER)
            async with kept(Lease(registry, "a", FACTS)) as lease:
                await until(lambda: lease.held)
                first = lease.epoch
                server.cli("FLUSHALL")
                await until(lambda: lease.epoch > first, within_s=RENEW_S + 1)
                assert [one.epoch for one in await registry.members()] == [lease.epoch]

    asyncio.run(scenario())
