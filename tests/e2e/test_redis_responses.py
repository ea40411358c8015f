"""Stored responses of two gateways in one real Redis, which is killed, filled and frozen."""

import asyncio
import logging

import pytest

from gateway.redis.link import RedisLink
from gateway.redis.packed_response import tag_of
from gateway.redis.response_index import response_key
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from openai_compat.errors import Unavailable
from openai_compat.responses.snapshot import Status
from openai_compat.responses.stored import Key
from tests.support.redis_server import RedisServer, cluster, needs_redis
from tests.support.responses import kept
from tests.support.shared_store import comes, shared_store

pytestmark = needs_redis

KEEPS = ("appendonly yes", "appendfsync always")
USED, SIZES = "penstock:{responses}:used", "penstock:{responses}:sizes"


@pytest.fixture(name="redis")
def own_redis(tmp_path):
    """One that keeps what it has when it is killed and started again."""
    server = RedisServer(tmp_path / "redis", *KEEPS)
    try:
        asyncio.run(set_up(Secret(server.start().url)))
        yield server
    finally:
        server.close()


def over(redis, scenario, *, links=(None, None), **bounds):
    """A scenario over the stores of two gateways."""

    async def run():
        one_link, two_link = (make and make() for make in links)
        async with (
            shared_store(redis.url, link=one_link, **bounds) as one,
            shared_store(redis.url, link=two_link, **bounds) as two,
        ):
            await scenario(one, two)

    asyncio.run(run())


def key_of(name):
    return response_key(tag_of(Key(b"", name)))


def there(redis, *names):
    """Those whose values are in Redis."""
    return [each for each in names if redis.cli("EXISTS", key_of(each)) == "1"]


def counted(redis):
    """How many the index has, and their bytes."""
    return int(redis.cli("ZCARD", USED)), int(redis.cli("HGET", SIZES, "") or 0)


async def has(store, name):
    return await store.get(Key(b"", name)) is not None


async def refused(asked):
    """What a client would be told."""
    with pytest.raises(Unavailable) as told:
        await asked
    assert (told.value.reply.status, told.value.reply.code) == (503, "store_unavailable")
    assert told.value.reply.retry_after_s == 2.0


def test_what_one_keeps_another_has_and_deletes(redis):
    """With all its parts but the events; deleted anywhere it is gone everywhere."""

    async def scenario(one, two):
        made = kept(size=50, previous="resp_0", events=[b"a", b"b"])
        await one.put(made)
        found = await two.get(made.key)
        assert (found.body, found.input, found.previous) == (made.body, b"[]", "resp_0")
        assert (found.background, list(found.events), found.first_event) == (True, [], 2)
        assert list((await one.get(made.key)).events) == [b"a", b"b"]
        assert await two.delete(made.key)
        assert await one.get(made.key) is None
        assert not await one.delete(made.key)
        await comes(lambda: asyncio.to_thread(lambda: counted(redis) == (0, 0)))

    over(redis, scenario)


def test_a_live_response_is_where_it_runs(redis):
    """And nowhere in Redis, whose help it does not need."""

    async def scenario(one, two):
        await one.put(kept(status=Status.IN_PROGRESS))
        await one.append(kept().key, [b"x"])
        assert await one.get(kept().key) is not None
        assert await two.get(kept().key) is None
        assert not there(redis, "resp_1")
        assert await one.delete(kept().key)
        redis.kill()
        assert await one.get(kept().key) is None  # nobody else could have it

    over(redis, scenario)


def test_a_maker_that_ends_leaves_it(redis):
    """The next gateway has it."""

    async def scenario(one, _):
        await one.put(kept(size=10))

    over(redis, scenario)

    async def later(one, _):
        assert await has(one, "resp_1")

    over(redis, later)


def test_keys_tell_nothing(redis):
    """Neither whose a response is nor its id."""

    async def scenario(one, _):
        await one.put(kept("resp_canary", tenant=b"tenant-canary"))

    over(redis, scenario)
    keys = redis.cli("KEYS", "*")
    assert "response" in keys
    assert "canary" not in keys
    assert "canary" not in redis.cli("HGETALL", SIZES)


# -- Redis is away


def test_while_it_is_down_each_has_its_own(redis, caplog):
    """Nothing is lost, nothing is said not to be there that may be, and it heals by itself."""
    caplog.set_level(logging.WARNING, "penstock.responses")

    async def scenario(one, two):
        await one.put(kept("before"))
        redis.kill()
        for number in range(20):
            await one.put(kept(f"during-{number}"))
        assert one.unsent == 20
        assert await has(one, "before")
        assert await has(one, "during-0")
        await refused(two.get(Key(b"", "before")))
        await refused(two.delete(Key(b"", "before")))
        await refused(one.delete(Key(b"", "before")))
        await refused(one.delete(Key(b"", "during-0")))
        assert await has(one, "before")
        assert await has(one, "during-0")
        await asyncio.to_thread(redis.start)
        await comes(lambda: all_sent(one))
        for name in ("before", "during-0", "during-19"):
            await comes(lambda name=name: told_of(two, name))
        assert await two.delete(Key(b"", "during-0"))
        assert not await has(one, "during-0")

    over(redis, scenario, max_bytes=100_000)
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "kept here alone" in line]) == 1
    assert not [line for line in said if "end here" in line]


async def all_sent(store):
    return store.unsent == 0


async def told_of(store, name):
    """Whether it is there, for one whose Redis may not be up again."""
    try:
        return await has(store, name)
    except Unavailable:
        return False


class Deadly(RedisLink):
    """A link whose server is killed just before, or just after, it sends a command."""

    def __init__(self, server, *, before=None, after=None):
        super().__init__(Secret(server.url))
        self.server, self.before, self.after = server, before, after

    async def call(self, function, keys, args=(), **how):
        asked = super().call(function, keys, args, **how)
        return await (self._deadly("FCALL", asked) if "note" in function else asked)

    async def command(self, name, key, *args, **how):
        return await self._deadly(name, super().command(name, key, *args, **how))

    async def _deadly(self, name, asked):
        if name == self.before:
            self.before = None
            self.server.kill()
        answer = await asked
        if name == self.after:
            self.after = None
            self.server.kill()
        return answer


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("command", ["FCALL", "SET"])
def test_a_death_at_any_step_of_keeping_heals(redis, command, when):
    """It is there in the end, and counted once."""

    async def scenario(one, two):
        await one.put(kept("a", size=100))
        assert await has(one, "a")
        await asyncio.to_thread(redis.start)
        await comes(lambda: all_sent(one))
        await comes(lambda: told_of(two, "a"))

    over(redis, scenario, links=(lambda: Deadly(redis, **{when: command}), None))
    assert there(redis, "a") == ["a"]
    assert counted(redis) == (1, kept(size=100).size)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_while_room_is_made_heals(redis, when):
    """Who should go is named to the next that keeps something; bytes are bounded again."""

    async def scenario(one, two):
        for name in "abc":
            await one.put(kept(name, size=5000))
        await one.put(kept("d", size=5000))
        await comes(lambda: asyncio.to_thread(lambda: redis.process.poll() is not None))
        await asyncio.to_thread(redis.start)
        await comes(lambda: told_of(two, "d"))
        await two.put(kept("e", size=5000))
        await comes(lambda: asyncio.to_thread(lambda: there(redis, *"abcde") == ["c", "d", "e"]))

    over(redis, scenario, links=(lambda: Deadly(redis, **{when: "UNLINK"}), None))


def test_one_that_is_frozen_gets_it_when_it_goes_on(redis):
    """Deleted meanwhile, what was under way does not bring it back."""

    async def scenario(one, two):
        redis.freeze()
        await one.put(kept("a"))
        await one.put(kept("b"))
        await refused(one.delete(Key(b"", "a")))
        redis.thaw()
        await comes(lambda: deleted(one, "a"))
        await comes(lambda: all_sent(one))
        await comes(lambda: told_of(two, "b"))
        assert there(redis, *"ab") == ["b"]

    over(redis, scenario)


async def deleted(store, name):
    try:
        return await store.delete(Key(b"", name))
    except Unavailable:
        return False


def test_one_that_is_deleted_while_it_is_sent_does_not_come_back(redis):
    """Who deletes waits for what is under way."""

    async def scenario(one, _):
        putting = asyncio.create_task(one.put(kept("a")))
        while not one._link.counts.commands["responses"]:  # noqa: ASYNC110 - its note is under way
            await asyncio.sleep(0)
        assert await one.delete(Key(b"", "a"))
        await putting
        assert not there(redis, "a")
        assert not await has(one, "a")

    over(redis, scenario)


def test_a_full_redis_gets_it_when_it_has_room(redis):
    """Until then it is here, and nobody is told that it is not there."""

    async def scenario(one, two):
        redis.cli("CONFIG", "SET", "maxmemory", "1")
        await one.put(kept("a"))
        await one.put(kept("b"))
        assert one.unsent == 2
        assert await has(one, "a")
        await comes(lambda: refuses(two, "a"))
        redis.cli("CONFIG", "SET", "maxmemory", "0")
        await comes(lambda: all_sent(one))
        await comes(lambda: told_of(two, "a"))

    over(redis, scenario)


async def refuses(store, name):
    """One that writes learns first that Redis is full; who only reads may hear that it is not."""
    try:
        await store.get(Key(b"", name))
    except Unavailable:
        return True
    await store.put(kept("another"))
    return False


def test_without_its_functions_it_waits(redis):
    """Nothing is kept there that nobody counts; once they are there all is sent."""

    async def scenario(one, two):
        redis.cli("FUNCTION", "FLUSH")
        await one.put(kept("a"))
        assert (one.unsent, there(redis, "a")) == (1, [])
        assert await has(one, "a")
        await set_up(Secret(redis.url))
        await comes(lambda: all_sent(one))
        assert await has(two, "a")

    over(redis, scenario)


def test_an_end_without_redis_says_what_is_lost(redis, caplog):
    """In one line."""
    caplog.set_level(logging.WARNING, "penstock.responses")

    async def scenario(one, _):
        redis.kill()
        await one.put(kept("a"))
        await one.put(kept("b"))

    over(redis, scenario)
    assert "2 responses end here: Redis did not take them" in caplog.text


# -- the budget


def test_two_gateways_have_one_budget(redis):
    """The longest unused goes, whoever made it; what they say is used counts."""

    async def scenario(one, two):
        for name in "ab":
            await one.put(kept(name, size=5000))
        await two.put(kept("c", size=5000))
        assert await has(two, "a")
        await comes(lambda: last_used(redis, "a"))
        await two.put(kept("d", size=5000))
        await comes(lambda: asyncio.to_thread(lambda: there(redis, *"abcd") == list("acd")))
        assert not await has(one, "b")
        await two.put(kept("e", size=5000))
        await comes(lambda: asyncio.to_thread(lambda: there(redis, *"abcde") == list("ade")))
        assert counted(redis) == (4, 4 * kept(size=5000).size)  # until the next is kept

    over(redis, scenario)


async def last_used(redis, name):
    return redis.cli("ZREVRANGE", USED, 0, 0) == tag_of(Key(b"", name))


def test_a_row_without_its_response_goes_when_room_is_needed(redis):
    """As a gateway leaves it that dies before it has sent the response."""

    async def scenario(one, two):
        for name in "abc":
            await one.put(kept(name, size=5000))
        redis.cli("DEL", key_of("a"))
        for name in "de":
            await two.put(kept(name, size=5000))
        await comes(lambda: asyncio.to_thread(lambda: there(redis, *"abcde") == list("cde")))
        await two.put(kept("f", size=5000))
        await comes(lambda: asyncio.to_thread(lambda: there(redis, *"cdef") == list("def")))

    over(redis, scenario)


def test_a_response_without_its_row_has_one_when_it_is_used(redis):
    """As a part of a cluster leaves it that lost the index."""

    async def scenario(one, two):
        await one.put(kept("a", size=50))
        redis.cli("DEL", USED, SIZES)
        assert await has(two, "a")
        await comes(lambda: asyncio.to_thread(lambda: counted(redis) == (1, kept(size=50).size)))

    over(redis, scenario)


def test_what_has_expired_is_counted_no_more(redis):
    """Rows end with the next note after their time; all of it ends when nobody comes."""

    async def scenario(one, _):
        await one.put(kept("a"))
        await one.put(kept("b"))

        async def only_one_is_used():
            return await has(one, "b") and counted(redis) == (1, kept().size)

        await comes(only_one_is_used)
        assert there(redis, *"ab") == ["b"]
        await comes(lambda: asyncio.to_thread(lambda: redis.cli("EXISTS", USED, SIZES) == "0"))

    over(redis, scenario, ttl_s=0.3)


def test_what_a_later_release_wrote_is_not_there(redis, caplog):
    """Said once."""
    caplog.set_level(logging.WARNING, "penstock.responses")

    async def scenario(one, _):
        redis.cli("SET", key_of("a"), '{"v":2}\n')
        assert not await has(one, "a")
        assert not await has(one, "a")

    over(redis, scenario)
    assert caplog.text.count("cannot be read") == 1


# -- what it costs


def commands(redis):
    """How many there were, by name."""
    calls = {}
    for line in redis.cli("INFO", "commandstats").splitlines():
        if line.startswith("cmdstat_"):
            name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
            calls[name] = int(rest.partition(",")[0])
    return {name: calls.get(name, 0) for name in ("fcall", "set", "getex", "unlink")}


def test_what_a_response_costs(redis):
    """Two commands to keep it; one to fetch it, and notes of many at once."""

    async def scenario(one, two):
        redis.cli("CONFIG", "RESETSTAT")
        before = one._link.counts.commands["responses"]
        for number in range(50):
            await one.put(kept(f"resp_{number}"))
        assert one._link.counts.commands["responses"] - before == 100
        cost = commands(redis)
        assert cost["fcall"] in (50, 51, 52)  # both ask for the version when they come up
        assert cost["getex"] + cost["unlink"] == 0
        redis.cli("CONFIG", "RESETSTAT")
        for number in range(50):  # as a chain of fifty is read
            assert await has(two, f"resp_{number}")
        await two._index.close()
        cost = commands(redis)
        assert cost["getex"] == 50
        assert 1 <= cost["fcall"] <= 50
        assert cost["set"] + cost["unlink"] == 0

    over(redis, scenario, max_bytes=1_000_000)


def test_a_cluster_keeps_them_in_all_its_parts(tmp_path):
    """Index and responses are in different slots; our users may do all of it."""

    async def scenario(nodes):
        await set_up(Secret(nodes.deploy_url))
        bounds = {"max_bytes": 20_000}
        async with shared_store(nodes.url, **bounds) as one, shared_store(nodes.url) as two:
            for number in range(30):
                await one.put(kept(f"resp_{number}", size=1000))
            assert one.unsent == 0
            await comes(lambda: bounded(nodes))
            assert await has(two, "resp_29")
            assert await two.delete(Key(b"", "resp_29"))
            assert not await has(one, "resp_29")

    async def bounded(nodes):
        return sum(int(node.cli("DBSIZE")) for node in nodes.nodes) <= 9 + 2 + 3  # and probes

    with cluster(tmp_path, users=True) as nodes:
        asyncio.run(scenario(nodes))
