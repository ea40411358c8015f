"""How long to wait before what failed is tried again. Pure."""

from collections.abc import Callable

FIRST_S = 0.5
LONGEST_S = 30.0
HEALTHY_S = 60.0


class BackOff:
    """0.5 s, doubling to 30 s, and anew after 60 s of health; up to half of it is left to chance.

    `chance` gives numbers in [0, 1): workers that fell together do not come back together.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._next_s = FIRST_S

    def after(self, healthy_s: float) -> float:
        """Seconds to wait after a failure that came after so many seconds of health."""
        if healthy_s >= HEALTHY_S:
            self._next_s = FIRST_S
        delay_s, self._next_s = self._next_s, min(LONGEST_S, 2 * self._next_s)
        return delay_s * (1 - self._chance() / 2)
