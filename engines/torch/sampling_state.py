"""What the sampler must remember of each running sequence, and what it does to its logits.

One column per parameter, one row per lane, so a step picks its rows by fancy indexing. What few
lanes use (penalties, bias, bans) is kept per lane and handed out as sparse *edits*: flat arrays of
(sample, token, value). Pure numpy: state is a function of prompt, generated tokens and `Sampling`,
and is rebuilt by replaying the tokens when a preempted sequence comes back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engines.api import Sampling, TokenLogprobs
from engines.guides.lanes import Steered
from engines.step import LaneStart

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]

# Below this a temperature is greedy: dividing by it would only overflow.
COLDEST = 1e-5

# Edits stay finite whatever a client asked for, so that no request can make a step's logits nan.
HUGE = 1e30


@dataclass(frozen=True, slots=True)
class Edits:
    """Changes to logits [samples, vocab], in order: scale, then add twice, then ban.

    Each is (sample, token[, value]) without duplicates, so that no sum depends on their order.
    """

    scale: tuple[Int64Array, Int64Array, Float32Array]  # divide what is positive, multiply the rest
    penalties: tuple[Int64Array, Int64Array, Float32Array]  # subtract
    bias: tuple[Int64Array, Int64Array, Float32Array]  # add
    banned: tuple[Int64Array, Int64Array]

    def banning(self, more: tuple[Int64Array, Int64Array] | None) -> "Edits":
        """The same with more tokens banned."""
        if more is None:
            return self
        samples, tokens = (np.concatenate(pair) for pair in zip(self.banned, more, strict=True))
        return replace(self, banned=(samples, tokens))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a draw turned out to be; all but the tokens by sample index."""

    tokens: Int64Array
    logprobs: dict[int, TokenLogprobs]
    steered: Steered


class TokenCounts:
    """Occurrences of tokens in one sequence, as arrays that grow only by new tokens."""

    def __init__(self, prompt: Sequence[int], generated: Sequence[int]) -> None:
        known = np.unique(np.asarray([*prompt, *generated], np.int64))
        self._size = len(known)
        self._place = {int(token): i for i, token in enumerate(known)}
        self._tokens = known
        self._generated = np.zeros(len(known), np.int64)
        for token in generated:
            self.add(token)

    @property
    def tokens(self) -> Int64Array:
        """Every token of prompt and output, once."""
        return self._tokens[: self._size]

    @property
    def generated(self) -> Int64Array:
        """How often each of `tokens` was generated."""
        return self._generated[: self._size]

    def add(self, token: int) -> None:
        """Count one more generated token."""
        place = self._place.setdefault(token, self._size)
        if place == self._size:
            self._grow(token)
        self._generated[place] += 1

    def _grow(self, token: int) -> None:
        if self._size == len(self._tokens):
            room = np.zeros(max(16, self._size), np.int64)
            self._tokens = np.concatenate([self._tokens, room])
            self._generated = np.concatenate([self._generated, room])
        self._tokens[self._size] = token
        self._size += 1


@dataclass(frozen=True, slots=True)
class LaneEdits:
    """The parameters of one lane that change single logits."""

    sampling: Sampling
    counts: TokenCounts | None  # None without penalties
    bias_tokens: Int64Array
    bias_values: Float32Array
    stop_tokens: Int64Array


class SamplingState:
    """What is known of up to `max_lanes` sequences over a vocabulary of `vocab` tokens."""

    def __init__(self, max_lanes: int, vocab: int) -> None:
        self._vocab = vocab
        self.seed = np.zeros(max_lanes, np.uint64)
        self.choice = np.zeros(max_lanes, np.int64)
        self.generated = np.zeros(max_lanes, np.int64)  # tokens so far; the noise position
        self.temperature = np.zeros(max_lanes, np.float32)
        self.top_k = np.zeros(max_lanes, np.int64)
        self.top_p = np.ones(max_lanes, np.float64)
        self.min_p = np.zeros(max_lanes, np.float64)
        self.logprobs = np.full(max_lanes, -1, np.int64)  # -1: not asked for
        self._edits: list[LaneEdits | None] = [None] * max_lanes

    def start(self, start: LaneStart) -> None:
        """Give a lane to a sequence, with the tokens it has generated before."""
        lane, sampling = start.lane, start.sampling
        self.seed[lane] = sampling.seed & 0xFFFF_FFFF_FFFF_FFFF
        self.choice[lane] = start.choice
        self.generated[lane] = len(start.generated)
        self.temperature[lane] = _finite(sampling.temperature)
        self.top_k[lane] = sampling.top_k if 0 < sampling.top_k < self._vocab else 0
        self.top_p[lane] = sampling.top_p
        self.min_p[lane] = sampling.min_p
        self.logprobs[lane] = -1 if sampling.logprobs is None else sampling.logprobs
        self._edits[lane] = self._lane_edits(start)

    def advance(self, lanes: Int64Array, tokens: Int64Array) -> None:
        """Each lane generated one token, or as many as it is there for."""
        np.add.at(self.generated, lanes, 1)
        for lane, token in zip(lanes.tolist(), tokens.tolist(), strict=True):
            own = self._edits[lane]
            if own is not None and own.counts is not None:
                own.counts.add(token)

    def advance_one(self, lane: int, tokens: Sequence[int]) -> None:
        """One lane got further tokens that were not drawn."""
        self.generated[lane] += len(tokens)
        own = self._edits[lane]
        if own is not None and own.counts is not None:
            for token in tokens:
                own.counts.add(token)

    def plain(self, lanes: Int64Array) -> bool:
        """Whether all of these lanes are greedy, without edits or log-probabilities."""
        return bool(
            (self.temperature[lanes] < COLDEST).all() and (self.logprobs[lanes] < 0).all()
        ) and not self.edited(lanes)

    def edited(self, lanes: Int64Array) -> bool:
        """Whether any of these lanes changes single logits."""
        return any(self._edits[lane] is not None for lane in lanes.tolist())

    def edits(self, lanes: Int64Array) -> Edits:
        """The changes to the logits of these lanes; their order numbers the samples."""
        own = [(i, lane, e) for i, lane in enumerate(lanes) if (e := self._edits[lane]) is not None]
        counted = [(i, e.sampling, e.counts) for i, _, e in own if e.counts is not None]
        return Edits(
            scale=_flat(
                (i, c.tokens, np.full(len(c.tokens), max(_finite(s.repetition), 1 / HUGE)))
                for i, s, c in counted
                if s.repetition != 1.0
            ),
            penalties=_flat((i, *_penalties(s, c)) for i, s, c in counted),
            bias=_flat((i, e.bias_tokens, e.bias_values) for i, _, e in own),
            banned=_flat(
                (i, e.stop_tokens, np.zeros(len(e.stop_tokens)))
                for i, lane, e in own
                if self.generated[lane] < e.sampling.min_tokens
            )[:2],
        )

    def _lane_edits(self, start: LaneStart) -> LaneEdits | None:
        sampling = start.sampling
        penalised = sampling.presence or sampling.frequency or sampling.repetition != 1.0
        if not (penalised or sampling.bias or sampling.min_tokens):
            return None
        # Ids beyond the vocabulary can never be sampled, so there is nothing to change.
        bias = {t: v for t, v in sampling.bias.items() if 0 <= t < self._vocab}
        stops = [t for t in sampling.stop_tokens if 0 <= t < self._vocab]
        return LaneEdits(
            sampling=sampling,
            counts=TokenCounts(start.prompt, start.generated) if penalised else None,
            bias_tokens=np.fromiter(bias, np.int64, len(bias)),
            bias_values=np.array([_finite(v) for v in bias.values()], np.float32),
            stop_tokens=np.array(sorted(stops), np.int64),
        )


def _penalties(sampling: Sampling, counts: TokenCounts) -> tuple[Int64Array, Float32Array]:
    """Tokens generated so far, and what presence and frequency take from each."""
    generated = counts.generated
    tokens = counts.tokens[generated > 0]
    amounts = sampling.presence + sampling.frequency * generated[generated > 0]
    return tokens, np.clip(amounts, -HUGE, HUGE).astype(np.float32)


def _finite(value: float) -> float:
    return float(np.clip(value, -HUGE, HUGE))


def _flat(
    parts: Iterator[tuple[int, Int64Array, npt.NDArray[np.floating]]],
) -> tuple[Int64Array, Int64Array, Float32Array]:
    """Concatenate (sample, tokens, values) into three arrays of one length."""
    found = list(parts)
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    samples, tokens, values = zip(*found, strict=True)
    rows = np.repeat(np.array(samples, np.int64), [len(t) for t in tokens])
    return rows, np.concatenate(tokens), np.concatenate(values).astype(np.float32)
