"""A budget of reasoning tokens: when it is spent, the end of reasoning is said, token by token."""

from engines.api import ThinkingBudget
from engines.guides.phrases import Occurrence


class Thinking:
    """Counts the tokens between `begin` and `end`, once."""

    def __init__(self, budget: ThinkingBudget) -> None:
        self._left = budget.tokens
        self._begin = Occurrence(budget.begin) if budget.begin else None  # None: it has begun
        self._end: Occurrence | None = Occurrence(budget.end)  # None: it has ended

    @property
    def wants(self) -> int | None:
        """The token that must come next, if one must."""
        if self._begin is None and self._end is not None and self._left <= 0:
            return self._end.next
        return None

    def take(self, token: int) -> None:
        """The sequence went on with this token."""
        if self._begin is not None:
            if self._begin.feed(token):
                self._begin = None
        elif self._end is not None:
            self._left -= 1
            if self._end.feed(token):
                self._end = None
