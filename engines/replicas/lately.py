"""How much has come to each of several places lately: sums that fade, halved every so often. Pure.

What came long ago counts for less, all of it by the same factor: so instead of all sums fading,
what comes counts for more, and one factor is taken out when they are read.
"""

import math

_MOST_HALVINGS = 500  # floats double a thousand times


class Lately:
    """Fading sums by name, of a clock that its caller reads."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._since = 0.0  # when a unit counted as one
        self._sums: dict[str, float] = {}

    def add(self, name: str, amount: float, now: float) -> None:
        """So much has come."""
        halvings = (now - self._since) / self._half_life_s
        if not -_MOST_HALVINGS < halvings < _MOST_HALVINGS:
            factor = self._factor(now)
            self._sums = {each: held * factor for each, held in self._sums.items()}
            self._since, halvings = now, 0.0
        self._sums[name] = self._sums.get(name, 0.0) + amount * math.exp2(halvings)

    def sums(self, now: float) -> dict[str, float]:
        """What is left of each; those without anything are left out."""
        factor = self._factor(now)
        return {name: held * factor for name, held in self._sums.items()}

    def forget(self, name: str) -> None:
        """A place is gone."""
        self._sums.pop(name, None)

    def _factor(self, now: float) -> float:
        halvings = (now - self._since) / self._half_life_s
        return math.exp2(-min(max(halvings, -_MOST_HALVINGS), 2.0 * _MOST_HALVINGS))
