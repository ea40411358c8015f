"""Idempotency-Key: which call a key stands for. One generation, however often it is asked for.

A claim says which call the first request with a key began. Whoever comes with the same key later
goes to that call, as long as a worker keeps it.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from openai_compat.errors import RequestRejected

HEADER = "idempotency-key"
CLAIM_S = 3600.0
_MOST = 100_000
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Claim:
    """A call, and what was asked of it."""

    call: str  # the stem of its id
    asked: str  # a digest of route and body


class Claims(Protocol):
    """Remembers claims for `CLAIM_S` seconds. Names are those of `claim_name`."""

    async def claim(self, name: str, claim: Claim) -> Claim:
        """The claim that stands: this one, unless there is an earlier one. Never fails."""

    async def forget(self, name: str, claim: Claim) -> None:
        """Take a claim back, if it is the one that stands. Never fails."""


@dataclass(slots=True)
class _Known:
    """A claim that stands in one gateway."""

    made: float
    claim: Claim
    told: int | None = None


class MemoryClaims:
    """Claims of one gateway."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._claims: OrderedDict[str, _Known] = OrderedDict()

    async def claim(self, name: str, claim: Claim) -> Claim:
        return self.known(name) or self.keep(name, claim)

    async def forget(self, name: str, claim: Claim) -> None:
        if name in self._claims and self._claims[name].claim == claim:
            del self._claims[name]

    def known(self, name: str) -> Claim | None:
        """The claim that stands here."""
        self._drop_old(self._clock())
        known = self._claims.get(name)
        return None if known is None else known.claim

    def keep(self, name: str, claim: Claim, told: int | None = None) -> Claim:
        """This one stands from now on. `told`: in which of its lives a store said so."""
        known = self._claims.get(name)
        if known is None or known.claim != claim:
            self._claims[name] = known = _Known(self._clock(), claim)
            self._claims.move_to_end(name)
        known.told = told
        return claim

    def told(self, name: str) -> int | None:
        """What `keep` was told of the claim that stands."""
        known = self._claims.get(name)
        return None if known is None else known.told

    def _drop_old(self, now: float) -> None:
        """In the order in which they were made."""
        while self._claims:
            oldest = next(iter(self._claims.values()))
            if now - oldest.made < CLAIM_S and len(self._claims) < _MOST:
                return
            self._claims.popitem(last=False)


def read_key(given: str | None) -> str | None:
    """The key of a request; None where there is none. Raises RequestRejected."""
    if given is None:
        return None
    if _KEY.fullmatch(given) is None:
        raise RequestRejected(
            "Idempotency-Key must be 1 to 255 visible ASCII characters, without spaces.",
            code="invalid_idempotency_key",
        )
    return given


def claim_name(tenant: bytes, key: str) -> str:
    """What stands for a key of a tenant: nobody can read either from it."""
    return blake2b(key.encode(), key=tenant[:64], digest_size=20).hexdigest()


def asked_of(route: str, body: bytes) -> str:
    """What two requests must have in common to be one call."""
    return blake2b(body, person=route.encode()[:16], digest_size=16).hexdigest()


def used_meanwhile() -> RequestRejected:
    """What a client is told whose call took so long to begin that another has its key."""
    return RequestRejected(
        "Another request with this Idempotency-Key has begun meanwhile: send it again to join it.",
        code="idempotency_key_in_use",
        status=409,
    )


def used_otherwise() -> RequestRejected:
    """What a client is told whose key stands for another body."""
    return RequestRejected(
        "This Idempotency-Key was used for another request: take a new key, or send the same body.",
        code="idempotency_key_reused",
        status=409,
    )
