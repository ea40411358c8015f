"""Claims of idempotency keys in Redis, for all gateways together; without it, each for itself.

A gateway remembers what Redis has told it, so that it knows its calls while Redis is down. What
Redis was not told, or may have lost since (it has been down), is offered to it again when it is
asked next, once: of two claims for one key Redis decides.
"""

import logging
from typing import Protocol

from gateway.claims import CLAIM_S, Claim, MemoryClaims
from gateway.redis.errors import RedisUnusable
from gateway.redis.functions_port import Functions
from gateway.redis.link import Purpose

_log = logging.getLogger("penstock.claims")


class Link(Functions, Protocol):
    """What is needed of a link to Redis."""

    @property
    def openings(self) -> int:
        """How often it went down: after that it may have lost what it was told."""


class RedisClaims:
    """Implements `Claims` by gateway/redis/functions/claims.lua: one command for each call."""

    def __init__(self, functions: Link, local: MemoryClaims) -> None:
        self._functions = functions
        self._local = local

    async def claim(self, name: str, claim: Claim) -> Claim:
        life, offered = self._functions.openings, claim
        known = self._local.known(name)
        if known is not None and self._local.told(name) != life:
            offered = known
        words = (_packed(offered), int(CLAIM_S * 1e3))
        try:
            told = await self._functions.call(
                "penstock_claim", [_key(name)], words, purpose=Purpose.RECORDS, hurried=True
            )
            return self._local.keep(name, _unpacked(told), life)
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
