"""Whether to ask a service that may be down. Pure: the clock is an argument.

    CLOSED --two failures in a row, or four within a second--> OPEN --rested--> a probe
           --one, and nothing at all was heard meanwhile----->
       ^------------------------- it is answered ---------------------------------'|
                                       OPEN, for twice as long <-- it is not ------'

While open nobody asks but the probe, so that being down costs callers nothing. One that comes back
and soon falls again rests on as long as it did before.
"""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """When a breaker opens, and how long it rests then."""

    in_a_row: int = 2
    within_window: int = 4
    window_s: float = 1.0
    first_rest_s: float = 0.1
    longest_rest_s: float = 2.0
    steady_s: float = 5.0  # closed for this long, it has recovered and may fail anew


_DEFAULT = Patience()


class Breaker:
    """Begins open, with a probe due at once: nobody waits for what was never there."""

    def __init__(self, patience: Patience = _DEFAULT, now: float = 0.0) -> None:
        self._patience = patience
        self._failures: deque[float] = deque(maxlen=patience.within_window)
        self._in_a_row = 0
        self._rest_s = patience.first_rest_s
        self._closed_at = now
        self.open = True
        self.probe_at = now  # when the next probe is due, while open
        self.openings = 0

    def succeed(self) -> None:
        """A call was answered. While open this is a late answer, and proves nothing."""
        self._in_a_row = 0

    def fail(self, now: float, *, silent: bool = False) -> bool:
        """A call was not; whether this has opened the breaker.

        `silent`: nor was anything else, for as long as a call may take.
        """
        if self.open:
            return False
        self._in_a_row += 1
        self._failures.append(now)
        few = self._in_a_row < self._patience.in_a_row and not self._crowded(now)
        if few and not silent:
            return False
        if now - self._closed_at >= self._patience.steady_s:
            self._rest_s = self._patience.first_rest_s
        self.open = True
        self.openings += 1
        self.probe_at = now + self._rest_s
        return True

    def probed(self, now: float, *, answered: bool) -> None:
        """The probe has ended: close, or rest for longer."""
        self._rest_s = min(2 * self._rest_s, self._patience.longest_rest_s)
        if answered:
            self.open = False
            self._closed_at = now
            self._in_a_row = 0
            self._failures.clear()
        else:
            self.probe_at = now + self._rest_s

    def _crowded(self, now: float) -> bool:
        """Whether the last few failures were within the window."""
        full = len(self._failures) == self._patience.within_window
        return full and now - self._failures[0] <= self._patience.window_s
