"""Seeded bugs of those who keep count of quotas: the machine of limits must catch each of them."""

from importlib.resources import files

import pytest

from gateway import memory_limiter
from gateway.limits import Grant
from gateway.memory_limiter import MemoryLimiter
from gateway.redis import library
from tests.support.hunting import CAUGHT, hunt
from tests.support.limits_machine import InRedis, LimitsMachine
from tests.support.redis_server import needs_redis, redis_server

LUA = files("gateway.redis") / "functions" / "limits.lua"
_settle = MemoryLimiter.settle
_reserve = MemoryLimiter.reserve
_standing_of = memory_limiter.standing_of
_unused = Grant.unused


def _calls_never_end(limiter, grant, used):
    account = limiter._accounts.get(grant.tenant)
    _settle(limiter, grant, used)
    if account is not None:
        account.leases.add(grant.lease)
        limiter._accounts[grant.tenant] = account


def _what_ends_twice_counts_twice(limiter, grant, used):
    account = limiter._accounts.get(grant.tenant)
    if account is not None and grant.lease not in account.leases:
        account.full_at -= 10
    _settle(limiter, grant, used)


def _nothing_is_given_back(limiter, grant, used):
    _settle(limiter, grant, grant.tokens)


def _accounts_are_kept(limiter, grant, used):
    account = limiter._accounts.get(grant.tenant)
    _settle(limiter, grant, used)
    if account is not None:
        limiter._accounts[grant.tenant] = account


def _accounts_are_dropped_with_the_last_call(limiter, grant, used):
    _settle(limiter, grant, used)
    account = limiter._accounts.get(grant.tenant)
    if account is not None and not account.leases:
        del limiter._accounts[grant.tenant]


async def _who_is_refused_counts(limiter, tenant, quota, tokens):
    verdict = await _reserve(limiter, tenant, quota, tokens)
    if verdict.grant is None:
        limiter._accounts[tenant].leases.add(f"refused {next(limiter._leases)}")
    return verdict


async def _tenants_are_one(limiter, tenant, quota, tokens):
    return await _reserve(limiter, b"", quota, tokens)


def _what_is_owed_may_be_negative(quota, in_flight, owed_s):
    return _standing_of(quota, in_flight, owed_s - 1)


def _all_is_given_back(grant, used, now):
    return float(grant.tokens)


def _what_has_refilled_is_given_back(grant, used, now):
    return float(max(0, grant.tokens - used))


def _who_uses_more_is_charged_again(grant, used, now):
    return float(grant.tokens - used) if used > grant.tokens else _unused(grant, used, now)


IN_MEMORY = {
    "calls never end": (MemoryLimiter, "settle", _calls_never_end),
    "what ends twice is given back twice": (
        MemoryLimiter, "settle", _what_ends_twice_counts_twice,
    ),
    "nothing is given back": (MemoryLimiter, "settle", _nothing_is_given_back),
    "accounts are kept for ever": (MemoryLimiter, "settle", _accounts_are_kept),
    "what is owed is forgotten": (
        MemoryLimiter, "settle", _accounts_are_dropped_with_the_last_call,
    ),
    "who is refused counts": (MemoryLimiter, "reserve", _who_is_refused_counts),
    "two tenants are one": (MemoryLimiter, "reserve", _tenants_are_one),
    "what is told is below nothing": (
        memory_limiter, "standing_of", _what_is_owed_may_be_negative,
    ),
    "all is given back": (Grant, "unused", _all_is_given_back),
    "what has refilled is given back": (Grant, "unused", _what_has_refilled_is_given_back),
    "who uses more is charged again": (Grant, "unused", _who_uses_more_is_charged_again),
}  # fmt: skip

# A line of gateway/redis/functions/limits.lua, and what a mistake would make of it.
IN_REDIS = {
    "leases never end": (
        "redis.call('ZREMRANGEBYSCORE', keys[2], '-inf', whole(now))", "",
    ),
    "leases end a second early": ("whole(now + lease_us)", "whole(now + lease_us - 1000000)"),
    "one more than the limit": ("in_flight >= most", "in_flight > most"),
    "who is refused counts": (
        "return {'tokens', in_flight,",
        "hold(keys, lease, now, lease_us)\n    return {'tokens', in_flight,",
    ),
    "what ends twice is given back twice": (
        "if redis.call('ZREM', keys[2], args[2]) == 0 then",
        "if redis.call('ZREM', keys[2], args[2]) == 2 then",
    ),
    "what is sent twice counts twice": (
        "if redis.call('ZSCORE', keys[2], lease) then", "if false then",
    ),
    "the dead are raised by a renewal": (
        "if redis.call('ZSCORE', keys[2], args[place]) then", "if true then",
    ),
    "nothing is renewed": ("hold(keys, args[place], now, tonumber(args[2]))", ""),
    "idle time is saved up": (
        "return math.max(0, tonumber(redis.call('GET', keys[1]) or '0') - now)",
        "return tonumber(redis.call('GET', keys[1]) or tostring(now)) - now",
    ),
    "a large call is never let in": ("per_minute > 0 and owed > 0 and", "per_minute > 0 and"),
    "a minute has 61 seconds": ("MINUTE_US = 60000000", "MINUTE_US = 61000000"),
    "all tenants' tokens are one's": ("redis.call('SET', keys[1],", "redis.call('SET', 'one',"),
    "what is given back is charged": (
        "owed_us(keys, now) - cost_us(", "owed_us(keys, now) + cost_us(",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_MEMORY)
def test_a_seeded_bug_is_caught_in_memory(name, monkeypatch):
    """Each bug breaks a verdict, a counter, or is remembered at the end."""
    owner, attribute, bug = IN_MEMORY[name]
    monkeypatch.setattr(owner, attribute, bug)
    with pytest.raises(CAUGHT):
        hunt(LimitsMachine)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@needs_redis
@pytest.mark.parametrize("name", IN_REDIS)
def test_a_seeded_bug_is_caught_in_redis(name, server):
    """The same of the functions, changed by a line."""
    line, bug = IN_REDIS[name]
    source, lua = library.source(), LUA.read_text(encoding="utf-8")
    assert lua.count(line) == 1, "the functions have changed: seed the bug anew"

    class Machine(LimitsMachine):
        def open_world(self):
            return InRedis(server, source.replace(lua, lua.replace(line, bug)))

    with pytest.raises(CAUGHT):
        hunt(Machine)
