"""One suite over both stores of responses: in the memory of a process, and in a real Redis."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from gateway.redis.setup import set_up
from gateway.responses.store import MemoryResponseStore, StoreFull
from gateway.setting_kinds import Secret
from openai_compat.responses.snapshot import Status
from openai_compat.responses.stored import Key
from tests.support.redis_server import BINARY, needs_redis, redis_server
from tests.support.responses import kept
from tests.support.shared_store import comes, shared_store


@pytest.fixture(name="redis", scope="module")
def one_redis(tmp_path_factory):
    if BINARY is None:
        pytest.skip("no redis-server here")
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        asyncio.run(set_up(Secret(server.deploy_url)))
        yield server


@asynccontextmanager
async def in_memory(*, max_bytes=20_000, ttl_s=100.0, max_responses=100):
    yield MemoryResponseStore(
        max_bytes=max_bytes, ttl_s=ttl_s, clock=time.monotonic, max_responses=max_responses
    )


@pytest.fixture(name="run", params=["memory", pytest.param("redis", marks=needs_redis)])
def runner(request):
    """A scenario over a store that has nothing yet."""
    if request.param == "memory":
        made = in_memory
    else:
        redis = request.getfixturevalue("redis")
        redis.cli("FLUSHALL")

        def made(**bounds):
            return shared_store(redis.url, **bounds)

    def run(scenario, **bounds):
        async def over():
            async with made(**bounds) as store:
                await scenario(store)

        asyncio.run(over())

    return run


async def ids(store, *names):
    return [each for each in names if await store.get(Key(b"", each)) is not None]


async def comes_to(store, expected, *names):
    """Room is made behind the scenes."""

    async def holds():
        return await ids(store, *names) == expected

    await comes(holds)


def test_what_is_put_is_fetched(run):
    """Live with its events, then as it ended."""

    async def scenario(store):
        live = kept(status=Status.IN_PROGRESS)
        await store.put(live)
        await store.append(live.key, [b"one", b"two"])
        await store.put(kept(size=5))
        found = await store.get(live.key)
        assert (found.status, found.body, list(found.events)) == (
            Status.COMPLETED, b"xxxxx", [b"one", b"two"]
        )  # fmt: skip

    run(scenario)


def test_another_tenant_finds_nothing(run):
    """Neither to read nor to delete, whatever the id."""

    async def scenario(store):
        await store.put(kept(tenant=b"a"))
        other = Key(b"b", "resp_1")
        assert await store.get(other) is None
        assert not await store.delete(other)
        assert await store.get(Key(b"a", "resp_1")) is not None

    run(scenario)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.IN_PROGRESS])
def test_a_deleted_response_is_gone(run, status):
    """Once."""

    async def scenario(store):
        await store.put(kept(size=100, status=status))
        assert await store.delete(kept().key)
        assert not await store.delete(kept().key)
        assert await store.get(kept().key) is None

    run(scenario)


def test_one_that_was_dropped_may_come_back(run):
    """As another process has left it."""

    async def scenario(store):
        await store.put(kept(status=Status.QUEUED))
        await store.drop(kept().key)
        assert await store.get(kept().key) is None
        await store.put(kept(size=3))
        assert (await store.get(kept().key)).body == b"xxx"

    run(scenario)


def test_the_one_unused_longest_goes_first(run):
    """To fetch is to use."""

    async def scenario(store):
        for each in "abc":
            await store.put(kept(each, size=5000))
        assert await store.get(Key(b"", "a")) is not None
        await store.put(kept("d", size=5000))
        await comes_to(store, ["a", "c", "d"], *"abcd")

    run(scenario)


def test_the_count_is_bounded_too(run):
    """Whatever their size."""

    async def scenario(store):
        for each in "abcd":
            await store.put(kept(each))
        await comes_to(store, ["c", "d"], *"abcd")

    run(scenario, max_responses=2)


def test_a_response_that_nobody_uses_expires(run):
    """Counted from its last use; a live one never does."""

    async def scenario(store):
        await store.put(kept("a"))
        await store.put(kept("b"))
        await store.put(kept("live", status=Status.QUEUED))
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert await ids(store, "a") == ["a"]
            await asyncio.sleep(0.02)
        assert await ids(store, "a", "b", "live") == ["a", "live"]
        await comes_to(store, [], "b")

    run(scenario, ttl_s=0.7)


def test_live_responses_are_never_taken(run):
    """When they fill the store, it says so and changes nothing."""

    async def scenario(store):
        for each in "abc":
            await store.put(kept(each, status=Status.IN_PROGRESS, size=900))
        with pytest.raises(StoreFull, match=r"3 responses .* of 20000 bytes \(--response-store"):
            await store.put(kept("new", size=2000))
        assert await ids(store, "new", *"abc") == list("abc")
        await store.put(kept("a", size=900))
        await store.put(kept("new", size=2000))
        assert await ids(store, "a", "new") == ["a", "new"]

    run(scenario)


def test_what_was_given_stays_as_it_was(run):
    """A reader of a response notices nothing of what becomes of it."""

    async def scenario(store):
        await store.put(kept(size=4, previous="resp_0"))
        found = await store.get(kept().key)
        await store.delete(found.key)
        assert (found.body, found.input, found.previous) == (b"xxxx", b"[]", "resp_0")

    run(scenario)
