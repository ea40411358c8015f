"""One row of logits to a token or to log-probabilities, in numpy: what the torch sampler computes.

Weights are float32 exp(logit - max), summed in float64. Rows are taken one by one: what one needs
of its vocabulary is found by its own threshold, so that few tokens are sorted.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.api import TokenLogprobs

Row = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_BLOCK = 256  # weights that are summed before the place of a draw is looked for within them
_FLOORS = (1e-3, 1e-6, 0.0)  # weights below are not sorted, where those above are enough
_LOW = np.uint64(0xFFFF_FFFF)
_HIGH = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Cut:
    """How a lane truncates its distribution; nothing of it is 0, 1.0 and 0.0."""

    top_k: int
    top_p: np.float64
    min_p: np.float64


def weights_of(logits: Row, temperature: np.float32) -> Row:
    """Unnormalised probabilities in [0, 1], the most likely token's being 1."""
    # Subtracting first keeps any temperature from overflowing.
    shifted: Row = logits - logits.max()
    shifted /= temperature
    np.exp(shifted, out=shifted)
    return shifted


def draw_whole(weights: Row, noise: np.float64) -> int:
    """By inverse CDF over the vocabulary in the order of ids; noise is below 1."""
    blocks = -(-len(weights) // _BLOCK)
    padded = np.zeros((blocks, _BLOCK), np.float32)
    padded.reshape(-1)[: len(weights)] = weights
    mass = padded.sum(axis=1, dtype=np.float64).cumsum()
    target = noise * mass[-1]
    block = min(int(mass.searchsorted(target, side="right")), blocks - 1)
    before = mass[block - 1] if block else 0.0
    within = padded[block].cumsum(dtype=np.float64)
    place = int(within.searchsorted(target - before, side="right"))
    # Sums of another order may end a little below: the last token that has a weight, then.
    return block * _BLOCK + min(place, int(within.searchsorted(within[-1])))


def draw_cut(weights: Row, noise: np.float64, cut: Cut) -> int:
    """From the shortest of the prefixes that top-k, top-p and min-p leave of the descending order.

    Equal weights are ordered by id.
    """
    ids, ordered, mass, total = _head(weights, cut)
    ends = len(ids)
    if cut.top_p < 1:  # the shortest prefix whose mass reaches it
        ends = min(ends, int(mass.searchsorted(cut.top_p * total)) + 1)
    if cut.min_p > 0:
        ends = min(ends, int((ordered >= cut.min_p).sum()))
    ends = max(ends, 1)
    place = int(mass.searchsorted(noise * mass[ends - 1], side="right"))
    return int(ids[min(place, ends - 1)])


def _head(weights: Row, cut: Cut) -> tuple[Ids, Row, npt.NDArray[np.float64], np.float64]:
    """A descending prefix that holds all that may be drawn: ids, weights, mass; and all mass."""
    if cut.top_k:
        ids = descending(weights, cut.top_k)
        mass = weights[ids].cumsum(dtype=np.float64)
        return ids, weights[ids], mass, mass[-1]
    total = weights.sum(dtype=np.float64)
    for floor in _FLOORS:
        some = np.flatnonzero(weights >= np.float32(floor))
        if (
            not floor
            or cut.min_p > floor
            or weights[some].sum(dtype=np.float64) > cut.top_p * total
        ):
            break
    ids = _sorted(weights, some)
    mass = weights[ids].cumsum(dtype=np.float64)
    return ids, weights[ids], mass, total


def descending(values: Row, width: int) -> Ids:
    """The ids of the `width` largest values, equal ones by lowest id."""
    if width >= len(values):
        return _sorted(values, np.arange(len(values)))
    if not width:
        return np.empty(0, np.int64)
    least = np.partition(values, len(values) - width)[len(values) - width]
    return _sorted(values, np.flatnonzero(values >= least))[:width]


def _sorted(values: Row, ids: Ids) -> Ids:
    """Ids by descending value: as unique integers, the value's bits above the id's complement."""
    # Adding zero turns -0.0 into 0.0, which compares equal but has other bits.
    bits = (values[ids] + np.float32(0)).view(np.int32).astype(np.int64)
    ordered = np.where(bits < 0, bits ^ 0x7FFF_FFFF, bits) + (1 << 31)
    keys = (ordered.astype(np.uint64) << _HIGH) | (_LOW - ids.astype(np.uint64))
    keys.sort()
    return (_LOW - (keys[::-1] & _LOW)).astype(np.int64)


def log_probabilities(logits: Row, token: int, most: int) -> TokenLogprobs:
    """Of a token and of the `most` likely ones, in the distribution of raw logits."""
    scores = logits - logits.max()
    scores -= np.float32(np.log(np.exp(scores).sum(dtype=np.float64)))
    ids = descending(scores, most)
    top = tuple(zip(ids.tolist(), scores[ids].tolist(), strict=True))
    return TokenLogprobs(float(scores[token]), top)
