"""The journal: one writer at a time, nothing twice, nothing of others; in memory and in Redis."""

import asyncio
import time

import pytest

from gateway.durable.journal import Entry, Fenced, JournalAway, Lost, name_of, read_whole
from gateway.redis.journal import RedisJournal, RedisLeases
from gateway.redis.link import RedisLink
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.support.memory_journal import MemoryJournal
from tests.support.redis_server import needs_redis, redis_server

ONE, OTHER = name_of(b"tenant", "one"), name_of(b"other", "one")


@pytest.fixture(name="server", scope="module")
def a_redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis"), users=True) as server:
        asyncio.run(set_up(Secret(server.deploy_url)))
        yield server


@pytest.fixture(name="over", params=["memory", pytest.param("redis", marks=needs_redis)])
def over_each(request):
    """Runs a scenario over a journal, and what empties it."""
    if request.param == "memory":
        journal = MemoryJournal()
        yield lambda scenario: asyncio.run(scenario(journal, journal.empty))
        return
    server = request.getfixturevalue("server")
    server.cli("FLUSHALL")

    async def linked(scenario):
        link = RedisLink(Secret(server.url))
        link.start()
        try:
            await asyncio.wait_for(link.came_up(), 10)
            await scenario(RedisJournal(link), lambda: server.cli("FLUSHALL"))
        finally:
            await link.close()

    yield lambda scenario: asyncio.run(linked(scenario))


def test_what_is_appended_is_read(over):
    """In order, from any place on; the record with the first."""

    async def scenario(journal, _):
        await journal.begin(ONE, b"record", 1)
        await journal.append(ONE, 1, 0, [b"a", b"b"])
        await journal.append(ONE, 1, 2, [b"c"])
        assert await read_whole(journal, ONE) == Entry(1, b"record", [b"a", b"b", b"c"])
        later = await journal.read(ONE, 2)
        assert (later.record, list(later.chunks)) == (b"", [b"c"])
        assert await journal.read(OTHER) is None

    over(scenario)


def test_an_append_again_changes_nothing(over):
    """Its answer may have been lost; what comes with it and is new is added."""

    async def scenario(journal, _):
        await journal.begin(ONE, b"", 1)
        await journal.append(ONE, 1, 0, [b"a"])
        await journal.append(ONE, 1, 0, [b"a"])
        await journal.append(ONE, 1, 0, [b"a", b"b"])
        assert (await read_whole(journal, ONE)).chunks == [b"a", b"b"]

    over(scenario)


def test_who_claims_is_the_one_who_writes(over):
    """The owner before gets Fenced for whatever it does; of two who claim one does."""

    async def scenario(journal, _):
        await journal.begin(ONE, b"record", 1)
        await journal.append(ONE, 1, 0, [b"a"])
        assert await journal.claim(ONE, 1)
        assert not await journal.claim(ONE, 1)
        for late in (
            journal.append(ONE, 1, 1, [b"x"]), journal.begin(ONE, b"other", 1),
            journal.note_gaps(ONE, 1, [1]), journal.end(ONE, 1, b"end", 60),
        ):  # fmt: skip
            with pytest.raises(Fenced):
                await late
        await journal.note_gaps(ONE, 2, [1, 3])
        await journal.append(ONE, 2, 1, [b"b"])
        assert await read_whole(journal, ONE) == Entry(2, b"record", [b"a", b"b"], (1, 3))

    over(scenario)


def test_what_has_ended_is_nobodys_to_claim(over):
    """It is read as long as it is there."""

    async def scenario(journal, _):
        await journal.begin(ONE, b"", 1)
        await journal.end(ONE, 1, b"end", 60)
        assert not await journal.claim(ONE, 1)
        assert (await journal.read(ONE)).ending == b"end"

    over(scenario)


def test_what_was_lost_is_entered_again(over):
    """By its owner; one before it, who is quicker, does not stand against it."""

    async def scenario(journal, empty):
        await journal.begin(ONE, b"record", 1)
        assert await journal.claim(ONE, 1)
        empty()
        for gone in (journal.append(ONE, 2, 0, [b"a"]), journal.end(ONE, 2, b"end", 60)):
            with pytest.raises(Lost):
                await gone
        await journal.begin(ONE, b"record", 1)
        with pytest.raises(Lost):
            await journal.append(ONE, 2, 0, [b"a"])
        await journal.begin(ONE, b"record", 2)
        with pytest.raises(Lost):
            await journal.append(ONE, 2, 5, [b"f"])
        await journal.append(ONE, 2, 0, [b"a"])
        assert (await read_whole(journal, ONE)).fence == 2

    over(scenario)


def test_what_is_forgotten_is_not_entered_again(over):
    """By an owner that does not know it yet."""

    async def scenario(journal, _):
        await journal.begin(ONE, b"record", 1)
        await journal.append(ONE, 1, 0, [b"a"])
        await journal.forget(ONE)
        assert await journal.read(ONE) is None
        for late in (journal.append(ONE, 1, 1, [b"b"]), journal.begin(ONE, b"record", 1)):
            with pytest.raises(Fenced):
                await late
        assert not await journal.claim(ONE, 1)

    over(scenario)


@needs_redis
def test_leases_end_by_themselves(server):
    """Those that are not renewed are due; wishes reach whoever renews; what is done is gone."""

    async def scenario():
        link = RedisLink(Secret(server.url))
        link.start()
        await asyncio.wait_for(link.came_up(), 10)
        leases = RedisLeases(link, lease_s=0.3)
        assert await leases.renew([ONE, OTHER]) == frozenset()
        assert await leases.due() == []
        await leases.wish(ONE)
        deadline = time.monotonic() + 5
        while await leases.due() != [OTHER]:
            assert await leases.renew([ONE]) == {ONE}
            assert time.monotonic() < deadline
        await leases.done(OTHER)
        await leases.release([ONE])
        assert await leases.due() == [ONE]
        await leases.done(ONE)
        assert await leases.renew([ONE]) == frozenset()
        await leases.done(ONE)
        assert await leases.due() == []
        await link.close()
        with pytest.raises(JournalAway):
            await leases.due()
        with pytest.raises(JournalAway):
            await RedisJournal(link).read(ONE)

    asyncio.run(scenario())
