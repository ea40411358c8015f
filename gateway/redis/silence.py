"""Whether a service that was asked has said nothing for too long. Pure: it is told what is heard.

One that is frozen, or behind a black hole, refuses nothing: each of its callers would wait for the
whole of what a call may take. How long is too long follows from how long its answers take, as TCP's
retransmission timer does (RFC 6298): the smoothed time and four times its variation, within bounds.
Any answer to anybody ends a silence, so a single command that is lost or slow makes none.

Only time in which somebody listened counts. Who is busy for 50 ms has heard nothing meanwhile, and
that says nothing: so it is counted in looks, each of which counts as the little time between two.
"""

from dataclasses import dataclass

_LOOKS = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what is called too long."""

    least_s: float = 0.025  # rather more than a server takes to fork, or a machine to be fair
    most_s: float = 0.25


_DEFAULT = Bounds()


class Silence:
    """`lasts` from when it was too long until an answer comes, or nothing is under way any more."""

    def __init__(self, bounds: Bounds = _DEFAULT) -> None:
        self._bounds = bounds
        self._smoothed_s: float | None = None
        self._varies_s = 0.0
        self._under_way = 0
        self._looks = 0  # since it was asked, or said something
        self.lasts = False
        self.times = 0  # that it began to last

    @property
    def patience_s(self) -> float:
        """How long is too long: the most, until there was an answer."""
        if self._smoothed_s is None:
            return self._bounds.most_s
        usual_s = self._smoothed_s + 4 * self._varies_s
        return min(max(usual_s, self._bounds.least_s), self._bounds.most_s)

    @property
    def look_s(self) -> float | None:
        """When to look again; none where nothing is asked, or it is too long already."""
        return self.patience_s / _LOOKS if self._under_way and not self.lasts else None

    def asked(self) -> None:
        """A command goes out."""
        if not self._under_way:
            self._looks = 0
        self._under_way += 1

    def answered(self, took_s: float) -> None:
        """It was answered, however late."""
        self._under_way -= 1
        self._looks = 0
        self.lasts = False
        if self._smoothed_s is None:
            self._smoothed_s, self._varies_s = took_s, took_s / 2
        else:
            self._varies_s += (abs(self._smoothed_s - took_s) - self._varies_s) / 4
            self._smoothed_s += (took_s - self._smoothed_s) / 8

    def given_up(self) -> None:
        """It never will be."""
        self._under_way -= 1
        if not self._under_way:
            self.lasts = False

    def look(self) -> bool:
        """Somebody has looked, `look_s` later or more; whether it is too long since just now."""
        if not self._under_way or self.lasts:
            return False
        self._looks += 1
        if self._looks < _LOOKS:
            return False
        self.lasts = True
        self.times += 1
        return True
