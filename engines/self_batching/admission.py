"""How much an engine is given at once, so that its own queue stays shallow. Pure.

Its scheduler decides what runs in an iteration; the order in which sequences come to it is ours.
A sequence is handed over while all of these hold:

    handed over          <  max_running                    it gets a place in the batch
    prompts not started  <= 2 iterations' tokens           they start soon
    blocks promised      <= num_blocks                     it runs to its end without eviction
    queued there         == 0, where statistics tell it

An idle engine is given the head in any case: what fits alone must not wait for ever.
The line is fair between tenants (engines.fair_line). What was handed over stays there: such an
engine gives nothing back for another.
"""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

from engines.fair_line import FairLine
from engines.fairness import CREDIT_STEPS, OUTPUT_COST, PROMPT_COST, Service
from engines.self_batching.stats import EngineStats

_T = TypeVar("_T")
_PREFILL_ITERATIONS = 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """The sizes of the engine below."""

    max_running: int
    max_num_tokens: int  # in one iteration
    num_blocks: int
    block_size: int


class _State(Enum):
    WAITING = auto()
    STARTING = auto()  # handed over, no token seen
    RUNNING = auto()
    GONE = auto()


@dataclass(slots=True, eq=False)
class Ticket(Generic[_T]):
    """One sequence on its way through."""

    owner: _T
    prompt: int  # tokens
    longest: int  # tokens, prompt and output
    priority: int = 0  # lower is earlier
    tenant: bytes = b""
    weight: float = 1.0
    account: int = field(default=0, init=False)  # of its tenant
    said: int = field(default=0, init=False)  # tokens, as far as they were looked at
    paid: float = field(default=0.0, init=False)  # what its tenant was charged
    blocks: int = field(default=0, init=False)  # promised to it
    state: _State = field(default=_State.WAITING, init=False)


class Admission(Generic[_T]):
    """The line in front of the engine, and the account of what it has been given."""

    def __init__(self, bounds: Bounds, ageing_s: float) -> None:
        self._bounds = bounds
        self._service = Service(credit=CREDIT_STEPS * bounds.max_num_tokens)
        self._line: FairLine[Ticket[_T]] = FairLine(ageing_s, self._service)
        self._arrivals = 0
        self._engine = EngineStats()
        self.running = 0  # handed over
        self.waiting = 0
        self.waiting_tokens = 0
        self.starting_tokens = 0
        self.blocks = 0  # promised

    def add(self, ticket: Ticket[_T], now_s: float) -> None:
        """Put a sequence in line."""
        self._arrivals += 1
        ticket.account = self._service.enter(ticket.tenant)
        self._line.push(ticket, ticket.account, ticket.priority, now_s, (self._arrivals, 0))
        self.waiting += 1
        self.waiting_tokens += ticket.prompt

    def admit(self, now_s: float) -> list[Ticket[_T]]:
        """Take out those to be handed over now, in order. Nobody overtakes the head."""
        admitted = []
        while (head := self._line.head(now_s)) is not None and self._fits(head):
            self._line.take(head.account)
            self._hand_over(head)
            admitted.append(head)
        return admitted

    def started(self, ticket: Ticket[_T], cached: int) -> None:
        """Its first token is there; `cached` tokens of its prompt came from the prefix cache."""
        if ticket.state is _State.STARTING:
            ticket.state = _State.RUNNING
            self._charge(ticket, -min(ticket.paid, PROMPT_COST * cached))
            self.starting_tokens -= ticket.prompt
            shared = min(cached // self._bounds.block_size, ticket.blocks)
            ticket.blocks -= shared
            self.blocks -= shared

    def told(self, ticket: Ticket[_T], said: int) -> None:
        """It has said so many tokens in all, those of before it came here left out."""
        if said > ticket.said:
            self._charge(ticket, OUTPUT_COST * (said - ticket.said))
            ticket.said = said

    def leave(self, ticket: Ticket[_T]) -> None:
        """Forget a sequence, wherever it is. Idempotent."""
        if ticket.state is _State.WAITING:
            self._line.remove(ticket, ticket.account)
            self.waiting -= 1
            self.waiting_tokens -= ticket.prompt
        elif ticket.state is not _State.GONE:
            self.started(ticket, 0)
            self.running -= 1
            self.blocks -= ticket.blocks
        if ticket.state is not _State.GONE:
            self._service.leave(ticket.account)
        ticket.state = _State.GONE

    def observe(self, stats: EngineStats) -> None:
        """Take in what the engine tells of itself."""
        self._engine = stats

    def _charge(self, ticket: Ticket[_T], cost: float) -> None:
        """Only while somebody waits, and several tenants are known."""
        if self._line and len(self._service) > 1:
            self._service.charge(ticket.account, cost / ticket.weight)
            ticket.paid += cost

    def _fits(self, ticket: Ticket[_T]) -> bool:
        bounds = self._bounds
        if self.running == 0:
            return True
        prefill = self.starting_tokens + ticket.prompt
        return (
            self.running < bounds.max_running
            and not self._engine.queued
            and (not self.starting_tokens or prefill <= _PREFILL_ITERATIONS * bounds.max_num_tokens)
            and self.blocks + self._blocks_of(ticket) <= bounds.num_blocks
        )

    def _hand_over(self, ticket: Ticket[_T]) -> None:
        ticket.state = _State.STARTING
        ticket.blocks = self._blocks_of(ticket)
        self.running += 1
        self.waiting -= 1
        self.waiting_tokens -= ticket.prompt
        self.starting_tokens += ticket.prompt
        self.blocks += ticket.blocks
        self._charge(ticket, PROMPT_COST * ticket.prompt)

    def _blocks_of(self, ticket: Ticket[_T]) -> int:
        return -(-ticket.longest // self._bounds.block_size)
