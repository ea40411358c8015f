"""Charges tenants for what the steps of a scheduler give them, and says who is due. Pure."""

from collections.abc import Iterable

import numpy as np

from engines.fairness import CREDIT_ROWS, CREDIT_STEPS, OUTPUT_COST, PROMPT_COST, Service
from engines.lanes import Lanes
from engines.limits import Limits
from engines.outcome import StepOutcome
from engines.sequence import Sequence


class Meter:
    """Reads the scheduler's lanes; all it owns are the accounts."""

    def __init__(self, limits: Limits, lanes: Lanes) -> None:
        self._lanes = lanes
        self._running = False  # somebody waits for what this step gives to others
        self.service = Service(credit=CREDIT_STEPS * min(limits.tokens_per_step, CREDIT_ROWS))

    def begin(self, *, contended: bool) -> None:
        """A step is planned. `contended`: somebody waits, for a lane or for the budget.

        Also of one tenant alone, if others were here: they will be ahead of it by what it had.
        """
        self._running = contended and len(self.service) > 1

    def prompt(self, sequence: Sequence, end: int) -> None:
        """The step computes a prompt up to `end`. What is computed again is charged once."""
        rows = end - max(sequence.charged, int(self._lanes.computed[sequence.lane]))
        if rows > 0 and self._running:
            self.service.charge(sequence.account, PROMPT_COST * rows / sequence.request.weight)
        sequence.charged = max(sequence.charged, end)

    def output(self, outcome: StepOutcome) -> None:
        """Sequences have new tokens."""
        if not self._running:
            return
        lanes, tokens = outcome.lanes, np.ones(len(outcome.lanes))
        for index, more in outcome.more.items():
            tokens[index] += len(more)
        costs = OUTPUT_COST * tokens * self._lanes.share[lanes]
        self.service.charge_each(self._lanes.account[lanes], costs)

    def served(self, sequence: Sequence) -> float:
        """What the sequence's tenant has been given."""
        return self.service.of(sequence.account)

    def turn(self, sequence: Sequence) -> tuple[int, float, int, int]:
        """Sorts running sequences that are behind."""
        priority, arrival, choice = self._age(sequence)
        return (priority, self.served(sequence), arrival, choice)

    @staticmethod
    def _age(sequence: Sequence) -> tuple[int, int, int]:
        return (sequence.request.priority, sequence.arrival, sequence.choice)

    def displaced_by(self, head: Sequence, running: Iterable[Sequence]) -> Sequence | None:
        """Who should give its lane to one that waits: the least senior of who holds most.

        Only where lanes are shared more evenly then, by weight, so nobody takes it back.
        """
        lanes, weight = self._lanes, head.request.weight
        active = lanes.active()
        held = np.bincount(lanes.account[active], lanes.share[active], head.account + 1)
        after = held[head.account] + len(head.group) / weight
        more = np.flatnonzero(held > after).tolist()  # columns first: mostly there is nobody
        over = {account for account in more if self.service.of(account) > self.served(head)}
        due = [
            each
            for each in running
            if each.account in over
            and held[each.account] - len(each.group) / each.request.weight >= after
            and self.is_due(head, each)
        ]
        return max(due, key=lambda each: (held[each.account], *self._age(each)), default=None)

    def is_due(self, head: Sequence, other: Sequence) -> bool:
        """Whether one that waits should have what is left of a step before one that runs."""
        no_worse = head.request.priority <= other.request.priority
        return no_worse and self.served(head) < self.served(other)
