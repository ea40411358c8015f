"""The store of responses: its bounds under any use, who goes first, and whose is whose."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.responses.store import MemoryResponseStore, StoreFull
from openai_compat.responses.snapshot import Status
from openai_compat.responses.stored import Key
from tests.support.responses import kept


class Clock:
    """A clock that goes when told."""

    now = 0.0

    def __call__(self):
        return self.now


def run(scenario, **limits):
    """A scenario over a store of ten small responses."""
    clock = Clock()
    given = {"max_bytes": 20_000, "ttl_s": 100.0, "clock": clock, **limits}
    return asyncio.run(scenario(MemoryResponseStore(**given), clock))


async def ids(store, *names):
    return [each for each in names if await store.get(Key(b"", each)) is not None]


def test_what_is_put_is_fetched():
    """With its events; replaced it keeps them."""

    async def scenario(store, _):
        live = kept(status=Status.IN_PROGRESS)
        await store.put(live)
        await store.append(live.key, [b"one", b"two"])
        await store.put(kept(size=5))
        found = await store.get(live.key)
        assert (found.status, found.body, found.events) == (
            Status.COMPLETED, b"xxxxx", [b"one", b"two"]
        )  # fmt: skip

    run(scenario)


def test_another_tenant_finds_nothing():
    """Neither to read nor to delete, whatever the id."""

    async def scenario(store, _):
        await store.put(kept(tenant=b"a"))
        other = Key(b"b", "resp_1")
        assert await store.get(other) is None
        assert not await store.delete(other)
        assert await store.get(Key(b"a", "resp_1")) is not None

    run(scenario)


def test_a_deleted_response_is_gone():
    """And its room is free."""

    async def scenario(store, _):
        await store.put(kept(size=100))
        assert await store.delete(kept().key)
        assert not await store.delete(kept().key)
        assert await store.get(kept().key) is None
        assert (store.bytes, len(store)) == (0, 0)

    run(scenario)


def test_the_one_unused_longest_goes_first():
    """To fetch is to use."""

    async def scenario(store, _):
        for each in "abc":
            await store.put(kept(each, size=5000))
        assert await store.get(Key(b"", "a")) is not None
        await store.put(kept("d", size=5000))
        assert await ids(store, *"abcd") == ["a", "c", "d"]

    run(scenario)


def test_the_count_is_bounded_too():
    """Whatever their size."""

    async def scenario(store, _):
        for each in "abcd":
            await store.put(kept(each))
        assert await ids(store, *"abcd") == ["c", "d"]

    run(scenario, max_responses=2)


def test_a_response_that_nobody_uses_expires():
    """Counted from its last use; a live one never does."""

    async def scenario(store, clock):
        await store.put(kept("a"))
        await store.put(kept("b"))
        await store.put(kept("live", status=Status.QUEUED))
        clock.now = 60
        assert await ids(store, "a") == ["a"]
        clock.now = 120
        assert await ids(store, "a", "b", "live") == ["a", "live"]
        clock.now = 1000
        assert await ids(store, "a", "b", "live") == ["live"]
        assert len(store) == 1

    run(scenario)


def test_live_responses_are_never_taken():
    """When they fill the store, it says so and changes nothing."""

    async def scenario(store, _):
        await store.put(kept("old", size=1000))
        for each in "abc":
            await store.put(kept(each, status=Status.IN_PROGRESS, size=900))
        with pytest.raises(StoreFull, match=r"3 responses .* of 20000 bytes \(--response-store"):
            await store.put(kept("new", size=2000))
        assert await ids(store, "new", *"abc") == list("abc")
        await store.put(kept("a", size=900))
        await store.put(kept("new", size=2000))
        assert await ids(store, "a", "new") == ["a", "new"]

    run(scenario)


def test_a_live_response_can_always_say_that_it_failed():
    """Room for its first events and for its end was taken when it was let in."""

    async def scenario(store, _):
        one, other = (kept(each, status=Status.QUEUED, size=800) for each in "ab")
        await store.put(one)
        await store.put(other)
        with pytest.raises(StoreFull):
            await store.append(other.key, [b"x" * 20_000])
        for _ in range(3):
            await store.append(one.key, [b"x" * 1000])
        await store.delete(one.key)
        await store.put(kept("a", status=Status.FAILED, size=1000, events=(b"x" * 1000, b"error")))
        assert await ids(store, "a", "b") == ["a", "b"]

    run(scenario, max_bytes=13_000)


def test_a_live_response_grows_as_far_as_there_is_room():
    """Finished ones make it; beyond that it is full, and nothing was added."""

    async def scenario(store, _):
        live = kept("live", status=Status.IN_PROGRESS)
        await store.put(kept("old", size=5000))
        await store.put(live)
        await store.append(live.key, [b"x" * 15_000])
        assert await ids(store, "old") == []
        with pytest.raises(StoreFull):
            await store.append(live.key, [b"x" * 5000])
        assert len((await store.get(live.key)).events) == 1

    run(scenario)


SIZES = st.integers(0, 9000)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "live", "finish", "append", "get", "delete", "wait"]),
        st.integers(0, 6),
        SIZES,
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_use_breaks_the_bounds(steps):
    """Bytes and count hold after every step, and the account is that of what is there."""

    async def scenario(store, clock):
        live = set()
        for verb, number, size in steps:
            await _step(store, clock, live, verb, f"resp_{number}", size)
            assert 0 <= store.bytes <= 20_000
            assert len(store) <= 5
            entries = [*store._live.values(), *store._finished.values()]
            assert all(e.log_bytes == sum(len(x) + 48 for x in e.log) for e in entries)
            held = [e.size() for e in entries]
            assert store.bytes == sum(held)
            assert {key.id for key in store._live} == live

    run(scenario, max_responses=5)


async def _step(store, clock, live, verb, each, size):
    key = Key(b"", each)
    try:
        match verb:
            case "put" | "finish":
                await store.put(kept(each, size=size))
                live.discard(each)
            case "live":
                await store.put(kept(each, size=size // 8, status=Status.IN_PROGRESS))
                live.add(each)
            case "append" if each in live:
                await store.append(key, [b"x" * size])
            case "get":
                await store.get(key)
            case "delete":
                await store.delete(key)
                live.discard(each)
            case "wait":
                clock.now += size / 100
    except StoreFull:
        assert live, "only live responses may fill it"


def test_a_fetched_value_is_a_value():
    """What a reader does to it is its own business."""

    async def scenario(store, _):
        await store.put(kept(events=(b"one",)))
        found = await store.get(kept().key)
        assert replace(found, body=b"other") != found
        assert (await store.get(kept().key)).body == b""

    run(scenario)
