"""Claims of idempotency keys in Redis, for all gateways together; without it, each for itself."""

import logging

from gateway.claims import CLAIM_S, Claim, Claims
from gateway.redis.errors import RedisUnusable
from gateway.redis.limiter import Functions
from gateway.redis.link import Purpose

_log = logging.getLogger("penstock.claims")


class RedisClaims:
    """Implements `Claims` by gateway/redis/functions/claims.lua: one command for each call."""

    def __init__(self, functions: Functions, local: Claims) -> None:
        self._functions = functions
        self._local = local

    async def claim(self, name: str, claim: Claim) -> Claim:
        words = (_packed(claim), int(CLAIM_S * 1e3))
        try:
            told = await self._functions.call(
                "penstock_claim", [_key(name)], words, purpose=Purpose.RECORDS
            )
            return _unpacked(told)
        except (RedisUnusable, ValueError) as error:
            _log.debug("claims are kept here alone: %s", type(error).__name__)
            return await self._local.claim(name, claim)

    async def forget(self, name: str, claim: Claim) -> None:
        await self._local.forget(name, claim)
        try:
            await self._functions.call(
                "penstock_forget_claim", [_key(name)], [_packed(claim)], purpose=Purpose.RECORDS
            )
        except RedisUnusable as error:
            _log.debug("a claim is not taken back: %s", type(error).__name__)


def _key(name: str) -> str:
    return f"penstock:{{{name}}}:claim"


def _packed(claim: Claim) -> str:
    return f"{claim.call} {claim.asked}"


def _unpacked(told: str | bytes) -> Claim:
    text = told.decode() if isinstance(told, bytes) else told
    call, asked = text.split(" ")
    return Claim(call, asked)
