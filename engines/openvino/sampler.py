"""Logits to tokens in numpy, with the same rules, noise and state as the torch runner's sampler.

It is one of its own so that a worker starts without importing torch. That both draw the same is
shown in tests/unit/engines/test_samplers.py.
"""

import numpy as np
import numpy.typing as npt

from engines.api import TokenLogprobs
from engines.drafts import Drafts
from engines.guides.lanes import LaneGuides, Masks
from engines.noise import uniform
from engines.openvino.drawing import Cut, draw_cut, draw_whole, log_probabilities, weights_of
from engines.step import LaneStart
from engines.torch.sampling_state import COLDEST, HUGE, Drawn, Edits, Int64Array, SamplingState

Logits = npt.NDArray[np.float32]  # [samples, vocab]


class Sampler:
    """Samples for lanes; knows each lane's parameters, history and guides."""

    def __init__(self, *, max_lanes: int, vocab: int, guides: LaneGuides | None = None) -> None:
        self._state = SamplingState(max_lanes, vocab)
        self._guides = LaneGuides(vocab, None) if guides is None else guides

    def start(self, start: LaneStart) -> None:
        """A sequence takes a lane."""
        self._state.start(start)
        self._guides.start(start)

    def sample(self, raw: Logits, lanes: Int64Array, drafts: Drafts | None = None) -> Drawn:
        """One token per lane from raw logits, which stay as they are.

        Each lane at most once, or as often as it has drafts and once more. Counts the tokens that
        count, and those they force, into their lanes. Raises FloatingPointError when the model
        produced nan or infinity.
        """
        # A sum is finite only if all it adds is.
        if not np.isfinite(raw.sum(axis=-1)).all():
            raise FloatingPointError("the model produced logits that are not finite")
        places = self._state.generated[lanes] + (0 if drafts is None else drafts.offsets)
        tokens = self._choose(raw, lanes, places)
        logprobs = self._logprobs(raw, lanes, tokens)
        counted = slice(None) if drafts is None else drafts.counted(tokens)
        self._state.advance(lanes[counted], tokens[counted])
        steered = self._guides.advance(lanes, tokens)
        for sample, forced in steered.forced.items():
            self._state.advance_one(int(lanes[sample]), forced)
        return Drawn(tokens, logprobs, steered)

    def _choose(self, raw: Logits, lanes: Int64Array, places: Int64Array) -> Int64Array:
        """Greedy everywhere, then overwritten where a lane says more."""
        tokens: Int64Array = raw.argmax(axis=-1)
        masks, banned = self._guides.masks(lanes), self._guides.banned(lanes)
        own: dict[int, npt.NDArray[np.float32]] = {}
        if banned is not None or self._state.edited(lanes):
            own = _edited(raw, self._state.edits(lanes).banning(banned))
        if masks is not None:
            own |= _masked(raw, own, masks)
        for sample, row in own.items():
            tokens[sample] = row.argmax()
        warm = np.flatnonzero(self._state.temperature[lanes] >= COLDEST)
        if len(warm):
            noise = self._noise(lanes[warm], places[warm])
            for number, sample in zip(noise, warm.tolist(), strict=True):
                row = own.get(sample, raw[sample])
                tokens[sample] = self._draw(row, int(lanes[sample]), number)
        return tokens

    def _noise(self, lanes: Int64Array, places: Int64Array) -> npt.NDArray[np.float64]:
        return uniform(self._state.seed[lanes], self._state.choice[lanes], places)

    def _draw(self, logits: npt.NDArray[np.float32], lane: int, noise: np.float64) -> int:
        state = self._state
        cut = Cut(int(state.top_k[lane]), state.top_p[lane], state.min_p[lane])
        weights = weights_of(logits, state.temperature[lane])
        if cut.top_k or cut.top_p < 1 or cut.min_p > 0:
            return draw_cut(weights, noise, cut)
        return draw_whole(weights, noise)

    def _logprobs(
        self, raw: Logits, lanes: Int64Array, tokens: Int64Array
    ) -> dict[int, TokenLogprobs]:
        """Of the raw distribution, for the samples that asked for them."""
        asked = self._state.logprobs[lanes]
        return {
            sample: log_probabilities(raw[sample], int(tokens[sample]), int(asked[sample]))
            for sample in np.flatnonzero(asked >= 0).tolist()
        }


def _edited(raw: Logits, edits: Edits) -> dict[int, npt.NDArray[np.float32]]:
    """The rows that edits change, as rows of their own, by sample."""
    every = (edits.scale, edits.penalties, edits.bias, edits.banned)
    touched = np.unique(np.concatenate([each[0] for each in every]))
    rows = raw[touched]
    (scaled, tokens, factors), at = edits.scale, touched.searchsorted
    found = rows[at(scaled), tokens]
    rows[at(scaled), tokens] = np.where(found > 0, found / factors, found * factors)
    samples, tokens, amounts = edits.penalties
    rows[at(samples), tokens] -= amounts
    samples, tokens, amounts = edits.bias
    rows[at(samples), tokens] += amounts
    # Finite, so that a row of nothing but banned tokens still has a distribution.
    np.clip(rows, -HUGE, HUGE, out=rows)
    samples, tokens = edits.banned
    rows[at(samples), tokens] = -2 * HUGE
    return dict(zip(touched.tolist(), rows, strict=True))


def _masked(
    raw: Logits, own: dict[int, npt.NDArray[np.float32]], masks: Masks
) -> dict[int, npt.NDArray[np.float32]]:
    """Infinitely unlikely wherever a mask is 0; a row keeps one token at least (SequenceGuide)."""
    vocab = raw.shape[1]
    masked = {}
    for sample, packed in zip(masks.samples.tolist(), masks.rows, strict=True):
        may = np.unpackbits(packed.view(np.uint8), bitorder="little", count=vocab).view(np.bool_)
        masked[sample] = np.where(may, own.get(sample, raw[sample]), np.float32(-np.inf))
    return masked
