"""Claims of idempotency keys: one suite for those in memory and those in a real Redis."""

import asyncio

import pytest

from gateway.claims import CLAIM_S, Claim, MemoryClaims, asked_of, claim_name, read_key
from gateway.redis.claims import RedisClaims, _key
from gateway.redis.errors import RedisDown
from gateway.redis.link import RedisLink
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from openai_compat.errors import RequestRejected
from tests.support.redis_server import BINARY, redis_server

ONE, TWO = Claim("a" * 24, "asked"), Claim("b" * 24, "asked")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if BINARY is None:
        pytest.skip("no redis-server here; apt-get install redis-server")
    with redis_server(tmp_path_factory.mktemp("redis"), users=True) as server:
        asyncio.run(set_up(Secret(server.deploy_url)))
        yield server


@pytest.fixture(params=["memory", "redis"])
def run(request):
    """Run a scenario over claims of this kind, empty."""
    if request.param == "memory":
        return lambda scenario: asyncio.run(scenario(MemoryClaims()))
    server = request.getfixturevalue("server")

    async def over(scenario):
        link = RedisLink(Secret(server.url))
        link.start()
        await link.came_up()
        try:
            await scenario(RedisClaims(link, Refusing()))
        finally:
            await link.close()

    def run(scenario):
        server.cli("FLUSHDB")
        asyncio.run(over(scenario))

    return run


class Refusing(MemoryClaims):
    """Claims that nobody may turn to while Redis is up."""

    async def claim(self, name, claim):
        raise AssertionError(f"{name} is claimed here")


def test_the_first_claim_stands(run):
    """For each name its own."""

    async def scenario(claims):
        assert await claims.claim("n", ONE) == ONE
        assert await claims.claim("n", TWO) == ONE
        assert await claims.claim("m", TWO) == TWO

    run(scenario)


def test_of_many_at_once_one_stands(run):
    """All are told the same."""

    async def scenario(claims):
        given = [Claim(f"{number:024x}", "asked") for number in range(100)]
        told = await asyncio.gather(*(claims.claim("n", claim) for claim in given))
        assert len(set(told)) == 1
        assert told[0] in given

    run(scenario)


def test_only_the_claim_that_stands_is_taken_back(run):
    """Then the next may have the name."""

    async def scenario(claims):
        await claims.claim("n", ONE)
        await claims.forget("n", TWO)
        assert await claims.claim("n", TWO) == ONE
        await claims.forget("n", ONE)
        assert await claims.claim("n", TWO) == TWO

    run(scenario)


def test_claims_end_by_themselves():
    """By the clock, and the oldest first where there are too many."""
    now = [0.0]

    async def scenario():
        claims = MemoryClaims(lambda: now[0])
        await claims.claim("n", ONE)
        now[0] = CLAIM_S - 1
        assert await claims.claim("n", TWO) == ONE
        now[0] = CLAIM_S
        assert await claims.claim("n", TWO) == TWO

    asyncio.run(scenario())


def test_in_redis_they_end_by_themselves_too(server):
    """By a time to live."""

    async def scenario():
        link = RedisLink(Secret(server.url))
        link.start()
        await link.came_up()
        await RedisClaims(link, MemoryClaims()).claim("ttl", ONE)
        await link.close()

    asyncio.run(scenario())
    assert CLAIM_S - 60 < int(server.cli("PTTL", _key("ttl"))) / 1000 <= CLAIM_S


class Gateway:
    """Claims over a store that several share, and what stands between a test and it."""

    def __init__(self, store):
        self.store = store
        self.up = True
        self.openings = 0
        self.claims = RedisClaims(self, MemoryClaims())

    async def call(self, function, keys, words, *, purpose, hurried=False):
        """What claims.lua does."""
        if not self.up:
            raise RedisDown("it is down")
        if function == "penstock_claim":
            return self.store.setdefault(keys[0], words[0])
        assert function == "penstock_forget_claim"
        if self.store.get(keys[0]) == words[0]:
            del self.store[keys[0]]
        return None

    def go_down(self):
        self.up = False
        self.openings += 1


def test_without_redis_each_gateway_has_its_own():
    """And no call fails."""

    async def scenario():
        gateway = Gateway({})
        gateway.go_down()
        assert await gateway.claims.claim("n", ONE) == ONE
        assert await gateway.claims.claim("n", TWO) == ONE
        await gateway.claims.forget("n", ONE)
        assert await gateway.claims.claim("n", TWO) == TWO

    asyncio.run(scenario())


def test_what_redis_said_is_known_while_it_is_down():
    """A call that began before is not begun again."""

    async def scenario():
        store = {}
        one, two = Gateway(store), Gateway(store)
        assert await one.claims.claim("n", ONE) == ONE
        assert await two.claims.claim("n", TWO) == ONE
        for gateway in (one, two):
            gateway.go_down()
            assert await gateway.claims.claim("n", TWO) == ONE

    asyncio.run(scenario())


@pytest.mark.parametrize("knew", [True, False])
def test_what_redis_does_not_know_it_is_told_when_it_is_back(knew):
    """It was claimed while it was down; or before, and it has lost everything."""

    async def scenario():
        store = {}
        one, two = Gateway(store), Gateway(store)
        if knew:
            await one.claims.claim("n", ONE)
        one.go_down()
        assert await one.claims.claim("n", ONE) == ONE
        store.clear()
        one.up = True
        assert await one.claims.claim("n", TWO) == ONE
        assert await two.claims.claim("n", TWO) == ONE

    asyncio.run(scenario())


def test_of_two_claims_made_while_redis_was_down_the_first_that_it_hears_of_stands():
    """For all gateways from then on."""

    async def scenario():
        store = {}
        one, two = Gateway(store), Gateway(store)
        for gateway, claim in ((one, ONE), (two, TWO)):
            gateway.go_down()
            assert await gateway.claims.claim("n", claim) == claim
            gateway.up = True
        assert await two.claims.claim("n", Claim("c" * 24, "asked")) == TWO
        assert await one.claims.claim("n", ONE) == TWO

    asyncio.run(scenario())


def test_a_claim_that_another_gateway_took_back_does_not_return():
    """Who knew it offers its own."""

    async def scenario():
        store = {}
        one, two = Gateway(store), Gateway(store)
        await one.claims.claim("n", ONE)
        assert await two.claims.claim("n", TWO) == ONE
        await one.claims.forget("n", ONE)
        assert await two.claims.claim("n", TWO) == TWO

    asyncio.run(scenario())


def test_names_tell_nothing_and_differ_by_tenant():
    """The key itself may be an order's number."""
    assert claim_name(b"ada", "order-1") != claim_name(b"bob", "order-1")
    assert "order" not in claim_name(b"ada", "order-1")
    assert asked_of("chat", b"{}") != asked_of("completions", b"{}")


@pytest.mark.parametrize("key", ["x", "a" * 255, "0b7e-~!"])
def test_keys_are_read_as_they_are(key):
    """Any visible ASCII."""
    assert read_key(key) == key
    assert read_key(None) is None
    with pytest.raises(RequestRejected):
        read_key(f"{key} ")
