"""How many rows of prompts fit in a step beside streams that decode: a budget of time. Pure.

    time of a step = a + b * rows + c * keys        keys: what the rows attend to, all together

a, b and c are fitted to the steps that were: least squares over the newest of two kinds, those with
rows of prompts in them and those without. Each kind forgets only by its own, so that hours of
decoding, where rows hardly vary, do not make forgotten what a row of a prompt costs.

A step may take the target; or, where decoding alone takes most of that, half as long again as it
alone. Where more sequences wait for their first token than decode, it is that much longer, up to
four times: short steps compute prompts slowly, and would have many wait to spare a few. Where none
decodes it is eight times as long: somebody may come meanwhile, or leave. A few rows of prompts fit
always: nobody starves.
"""

import math

LEAST_ROWS = 16  # of prompts in a step, whatever it takes; and all there is before the first fit
FIRST_ROWS = 512  # of prompts before the first fit, where none decodes
_STRETCH = 1.5  # times what decoding alone takes
_GROWTH = 2  # times the most rows that a step with prompts had: the next one has no more
_MOST_PATIENCE = 4.0  # times the target, where as many wait for each sequence that decodes
_UNDISTURBED = 8.0  # times the target, or what a step takes at the least, where none decodes
_FORGET = 1 / 64  # of a kind's weight, by each of its steps
_ENOUGH = 8.0  # steps of a kind, before any is called an outlier
_OUTLIER = 4.0  # times what was expected; a step that takes longer is a pause of something else


class _Moments:
    """Sums over the steps of one kind, in which older ones count less and less."""

    __slots__ = ("sums",)

    def __init__(self) -> None:
        self.sums = [0.0] * 9

    def add(self, rows: float, keys: float, took: float) -> None:
        new = (
            1.0, rows, keys, rows * rows, rows * keys, keys * keys,
            took, rows * took, keys * took,
        )  # fmt: skip
        keep = 1.0 - _FORGET
        self.sums = [old * keep + one for old, one in zip(self.sums, new, strict=True)]


class Pace:
    """The budget of one step after another. `target_s`: what a step with both may take."""

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self._kinds = (_Moments(), _Moments())  # decoding alone, and with prompts
        self._fit = (0.0, 0.0, 0.0)
        self._stale = False
        self._most = 0  # rows of a step with prompts so far
        self._decoding = False
        self._expected = 0.0  # seconds of the step as planned so far
        self._allowed = math.inf
        self._given = 0  # rows of prompts in the step

    def observe(self, rows: int, keys: int, took_s: float, *, prompts: bool) -> None:
        """A step has taken that long. `prompts`: some of its rows were of prompts."""
        expected = self._time(rows, keys)
        if expected > 0 and self._kinds[prompts].sums[0] > _ENOUGH:
            took_s = min(took_s, _OUTLIER * expected)
        self._kinds[prompts].add(float(rows), float(keys), took_s)
        self._most = max(self._most, rows if prompts else 0)
        self._stale = True

    def begin(self, rows: int, keys: int, waiting: int) -> None:
        """A step with so many decoding rows, and sequences that wait for their first token."""
        self._refit()
        self._given = 0
        self._decoding = rows > 0
        alone = self._expected = self._time(rows, keys)
        if rows:
            patience = min(max(waiting / rows, 1.0), _MOST_PATIENCE)
            self._allowed = max(self._target_s * patience, _STRETCH * alone)
        else:
            self._allowed = _UNDISTURBED * max(self._target_s, alone)

    def within(self, rows: int, start: int) -> int:
        """How many of so many rows fit, of a prompt that is computed up to `start`."""
        least = LEAST_ROWS if self._most or self._decoding else FIRST_ROWS
        room = max(least - self._given, 0)
        if self._most:
            most = max(_GROWTH * self._most - self._given, 0)
            fits = _rows_in(self._allowed - self._expected, *self._fit[1:], start)
            room = max(room, min(fits, most))
        return min(rows, room)

    def take(self, start: int, rows: int) -> None:
        """These rows of a prompt are in the step."""
        self._given += rows
        self._expected += self._fit[1] * rows + self._fit[2] * keys_of(start, rows)

    def _time(self, rows: float, keys: float) -> float:
        base, row, key = self._fit
        return base + row * rows + key * keys

    def _refit(self) -> None:
        if self._stale:
            pairs = zip(self._kinds[0].sums, self._kinds[1].sums, strict=True)
            self._fit = fit([one + other for one, other in pairs])
            self._stale = False


def keys_of(start: int, rows: int) -> int:
    """How many keys the rows from `start` on attend to, themselves included."""
    return rows * start + rows * (rows + 1) // 2


def fit(sums: list[float]) -> tuple[float, float, float]:
    """The a, b and c that are least wrong, none of them below nothing."""
    n, x, y, xx, xy, yy, t, xt, yt = sums
    if not n:
        return 0.0, 0.0, 0.0
    # About the means: what rows and keys vary together, and each with the time.
    sxx, sxy, syy = xx - x * x / n, xy - x * y / n, yy - y * y / n
    sxt, syt = xt - x * t / n, yt - y * t / n
    row = key = 0.0
    determinant = sxx * syy - sxy * sxy
    if determinant > 1e-6 * sxx * syy:
        row = (sxt * syy - syt * sxy) / determinant
        key = (syt * sxx - sxt * sxy) / determinant
    if row <= 0 or key <= 0:  # they vary as one, or one of them is lost in noise: rows alone tell
        key = 0.0
        row = max(0.0, sxt / sxx) if sxx > 1e-6 * xx else 0.0
    if row <= 0:  # nothing tells them from the step: all of it is theirs, so that none is too long
        return 0.0, t / x if x else 0.0, 0.0
    base = (t - row * x - key * y) / n
    if base < 0:
        base, row = 0.0, max(0.0, (xt - key * xy) / xx) if xx else 0.0
    return base, row, key


def _rows_in(left_s: float, row_s: float, key_s: float, start: int) -> int:
    """The most rows from `start` on that take no longer than what is left."""
    each, growth = row_s + key_s * (start + 0.5), key_s / 2
    if left_s <= 0:
        return 0
    if growth <= 0:
        return int(left_s / each) if each > 0 else 1 << 30
    return int((math.sqrt(each * each + 4 * growth * left_s) - each) / (2 * growth))
