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


class Refusing:
    """Claims that nobody may turn to while Redis is up."""

    async def claim(self, name, claim):
        raise AssertionError(f"{name} is claimed here")

    async def forget(self, name, claim):
        """Nothing is here."""


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


def test_without_redis_each_gateway_has_its_own():
    """And no call fails."""

    class Down:
        async def call(self, *_, **__):
            raise RedisDown("it is down")

    async def scenario():
        claims = RedisClaims(Down(), MemoryClaims())
        assert await claims.claim("n", ONE) == ONE
        assert await claims.claim("n", TWO) == ONE
        await claims.forget("n", ONE)
        assert await claims.claim("n", TWO) == TWO

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
