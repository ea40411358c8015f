"""May this call enter now? Bounds what is in flight and what waits; says when to come back.

Nothing queues here: what enters goes to the engine, whose line is fair between tenants. What must
be shared here is the room in that line. Where several tenants may call, each may hold four times
what is still free (by weight): one alone four fifths of all, two four ninths each, and there is
always room for one who comes (dynamic thresholds, Choudhury and Hahne, 1998).

Pure: the clock is an argument. One owner (the event loop), so no locks.
"""

import math
from dataclasses import dataclass

from openai_compat.errors import Overloaded

_RATE_WINDOW_S = 10.0
_MIN_RETRY_S, _MAX_RETRY_S = 1.0, 60.0
_OF_WHAT_IS_FREE = 4


@dataclass(slots=True)
class Ticket:
    """One admitted call. `waiting_tokens` are those of its prompts without a token yet."""

    sequences: int
    waiting_tokens: int
    tenant: bytes = b""


@dataclass(slots=True)
class _Held:
    """What one tenant has in flight."""

    sequences: int = 0
    waiting_tokens: int = 0


class DrainRate:
    """Sequences finished per second over the last seconds, correct from the first one on.

    An exponentially decaying count divided by the decayed age: a plain EWMA starts at zero and
    would tell the first refused clients to wait far too long.
    """

    def __init__(self, window_s: float = _RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._count = 0.0
        self._began: float | None = None
        self._last = 0.0

    def add(self, sequences: int, now: float) -> None:
        self._count = self._decayed(now) + sequences
        self._last = now

    def start(self, now: float) -> None:
        """Work is there from now on: idle time before it says nothing about speed."""
        self._began, self._last, self._count = now, now, 0.0

    def per_second(self, now: float) -> float:
        if self._began is None or now <= self._began:
            return 0.0
        age = self._window_s * -math.expm1(-(now - self._began) / self._window_s)
        return self._decayed(now) / age

    def _decayed(self, now: float) -> float:
        return self._count * math.exp(-max(0.0, now - self._last) / self._window_s)


class Admission:
    """Counts sequences in flight and prompt tokens waiting; refuses beyond the limits.

    `shared`: several tenants may call. A call of one that has none in flight needs only room.
    """

    def __init__(
        self, *, max_sequences: int, max_waiting_tokens: int, shared: bool = False
    ) -> None:
        self._shared = shared
        self._held: dict[bytes, _Held] = {}
        self._max_sequences = max_sequences
        self._max_waiting_tokens = max_waiting_tokens
        self._rate = DrainRate()
        self.sequences = 0
        self.waiting_tokens = 0

    def resize(self, max_sequences: int) -> None:
        """Workers have come or gone: so many fit in from now on; who is in stays."""
        self._max_sequences = max_sequences

    def check(self, now: float) -> None:
        """Refuse cheaply, before the body is read, when there is no room for anything.

        Raises Overloaded.
        """
        if self.sequences >= self._max_sequences:
            raise self._overloaded(1, now)

    def admit(
        self,
        sequences: int,
        prompt_tokens: int,
        now: float,
        *,
        tenant: bytes = b"",
        weight: float = 1.0,
    ) -> Ticket:
        """Count a call in. Raises Overloaded; a call larger than a whole limit enters when idle."""
        if self.sequences and self.sequences + sequences > self._max_sequences:
            raise self._overloaded(sequences, now)
        if self.waiting_tokens and self.waiting_tokens + prompt_tokens > self._max_waiting_tokens:
            raise self._overloaded(sequences, now)
        held = self._held.get(tenant)
        if held is not None and self._shared:
            self._check_share(held, sequences, prompt_tokens, weight, now)
        return self.rejoin(sequences, prompt_tokens, now, tenant=tenant)

    def rejoin(
        self, sequences: int, prompt_tokens: int, now: float, *, tenant: bytes = b""
    ) -> Ticket:
        """Count a call in that runs already, beyond the limit up to twice. Raises Overloaded."""
        if self.sequences and self.sequences + sequences > 2 * self._max_sequences:
            raise self._overloaded(sequences, now)
        if not self.sequences:
            self._rate.start(now)
        held = self._held.setdefault(tenant, _Held())
        held.sequences += sequences
        held.waiting_tokens += prompt_tokens
        self.sequences += sequences
        self.waiting_tokens += prompt_tokens
        return Ticket(sequences, prompt_tokens, tenant)

    def _check_share(
        self, held: _Held, sequences: int, prompt_tokens: int, weight: float, now: float
    ) -> None:
        most = _OF_WHAT_IS_FREE * weight * (self._max_sequences - self.sequences)
        if held.sequences + sequences > most:
            raise self._overloaded(sequences, now)
        most = _OF_WHAT_IS_FREE * weight * (self._max_waiting_tokens - self.waiting_tokens)
        if held.waiting_tokens and held.waiting_tokens + prompt_tokens > most:
            raise self._overloaded(sequences, now)

    def computed(self, ticket: Ticket, prompt_tokens: int) -> None:
        """A prompt of the call has its first token: it waits no more."""
        if prompt_tokens:
            self._held[ticket.tenant].waiting_tokens -= prompt_tokens
            self.waiting_tokens -= prompt_tokens
            ticket.waiting_tokens -= prompt_tokens

    def release(self, ticket: Ticket, now: float) -> None:
        """Count a call out, however it ended. Idempotent."""
        self.computed(ticket, ticket.waiting_tokens)
        if not ticket.sequences:
            return
        self.sequences -= ticket.sequences
        self._rate.add(ticket.sequences, now)
        held = self._held[ticket.tenant]
        held.sequences -= ticket.sequences
        if not held.sequences:
            del self._held[ticket.tenant]
        ticket.sequences = 0

    def retry_after_s(self, sequences: int, now: float) -> float:
        """When room for so many sequences is likely, from the measured drain rate."""
        rate = self._rate.per_second(now)
        missing = max(1, self.sequences + sequences - self._max_sequences)
        wait = missing / rate if rate > 0 else _MIN_RETRY_S
        return min(max(wait, _MIN_RETRY_S), _MAX_RETRY_S)

    def _overloaded(self, sequences: int, now: float) -> Overloaded:
        return Overloaded(
            f"The queue is full: {self.sequences} of {self._max_sequences} sequences"
            f" (--max-running + --max-queued-requests) and {self.waiting_tokens} of"
            f" {self._max_waiting_tokens} waiting prompt tokens (--max-queued-tokens)"
            f"{', of which a key may not have all' if self._shared else ''}.",
            retry_after_s=self.retry_after_s(sequences, now),
        )
