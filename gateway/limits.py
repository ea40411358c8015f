"""What one API key may have at a time: quotas, and the protocol of those who keep count of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from openai_compat.errors import RateLimited

MINUTE_S = 60.0
ROUNDING = 1e-6  # tokens
_NEXT_END_S = 1.0  # when the next call of a key ends nobody knows: soon


@dataclass(frozen=True, slots=True)
class Quota:
    """What a key may have; 0: as much as there is."""

    tokens_per_minute: int = 0  # prompt and output; unused ones of the last minute may come at once
    max_concurrent: int = 0  # calls in flight

    def __bool__(self) -> bool:
        return bool(self.tokens_per_minute or self.max_concurrent)


UNLIMITED = Quota()
LIMIT_HEADERS = tuple(
    f"x-ratelimit-{what}-{of}"
    for of in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
)


class Spent(StrEnum):
    """What of its quota a refused call found spent."""

    REQUESTS = "requests"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands after a call was counted in, or refused."""

    quota: Quota
    in_flight: int
    tokens_left: int
    refill_s: float  # until all tokens of a minute are there again


@dataclass(frozen=True, slots=True)
class Grant:
    """A call that was counted in: `lease` stands for it until it is settled."""

    tenant: bytes
    quota: Quota
    tokens: int  # reserved
    lease: str
    # When the last of these will have refilled, by the clock of who counts: what is given back
    # after that would be given twice.
    refilled_at: float = math.inf

    def unused(self, used: int, now: float) -> float:
        """Tokens to give back at the end of a call that used so many."""
        refilling = (self.refilled_at - now) * self.quota.tokens_per_minute / MINUTE_S
        # A little more than it is, so that what is owed comes to nothing and not to a rounding.
        return max(0.0, min(self.tokens - used, refilling + ROUNDING))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A grant, or what is spent and when to come back."""

    standing: Standing
    grant: Grant | None
    spent: Spent | None = None
    retry_after_s: float = 0.0


class Limiter(Protocol):
    """Keeps count by the generic cell rate algorithm, with reserving and refunding.

    A call reserves all it may use, prompt and `max_tokens`, and gives back what it did not. One
    that asks for more than a minute holds is let in when nothing is spent, and pays off its debt.
    """

    async def reserve(self, tenant: bytes, quota: Quota, tokens: int) -> Verdict:
        """Count a call in, or do nothing and say why. Never fails."""

    def settle(self, grant: Grant, used: int) -> None:
        """Count a call out, and give back what it did not use. Once per grant: more do nothing."""

    async def close(self) -> None:
        """Let go of what is held."""


@dataclass(slots=True)
class Permit:
    """What a call holds of its key's quota. Settled once, however it ends."""

    _settle: Callable[[int], None] | None = field(default=None)

    def settle(self, used: int) -> None:
        """The call has ended after so many tokens. Idempotent."""
        settle, self._settle = self._settle, None
        if settle is not None:
            settle(used)


def permit(limiter: Limiter, verdict: Verdict) -> Permit:
    """What the call holds that was let in. Raises RateLimited for one that was not."""
    if (grant := verdict.grant) is None:
        raise RateLimited(_refusal(verdict), retry_after_s=verdict.retry_after_s or _NEXT_END_S)
    return Permit(lambda used: limiter.settle(grant, used))


def _refusal(verdict: Verdict) -> str:
    quota = verdict.standing.quota
    if verdict.spent is Spent.REQUESTS:
        return f"This key has {quota.max_concurrent} calls in flight, and may have no more."
    return (
        f"This key has spent its {quota.tokens_per_minute} tokens per minute. A call counts with"
        " its prompt and max_tokens until it has ended."
    )


def limit_headers(standing: Standing) -> list[tuple[bytes, bytes]]:
    """A standing as OpenAI tells it. Of calls in flight nobody knows when the next one ends."""
    quota, told = standing.quota, dict[str, object]()
    if quota.max_concurrent:
        left = max(0, quota.max_concurrent - standing.in_flight)
        told["limit-requests"], told["remaining-requests"] = quota.max_concurrent, left
        told["reset-requests"] = duration(0 if left else _NEXT_END_S)
    if quota.tokens_per_minute:
        told["limit-tokens"] = quota.tokens_per_minute
        told["remaining-tokens"] = standing.tokens_left
        told["reset-tokens"] = duration(standing.refill_s)
    return [(f"x-ratelimit-{name}".encode(), str(value).encode()) for name, value in told.items()]


def duration(seconds: float) -> str:
    """As in `6m0s`, `1.5s` and `20ms`, which is how OpenAI's clients read it."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms" if seconds > 0 else "0s"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
