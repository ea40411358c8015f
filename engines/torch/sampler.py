"""Logits to tokens: edits, masks, temperature, top-k, top-p, min-p, one uniform number per row.

A row's token is a function of its own logits and lane only: every operation is row-wise, and which
path a row takes depends on its own parameters. Two paths, by inverse CDF:

    whole      no truncation: the CDF runs over the vocabulary in id order, nothing is sorted
    truncated  tokens in descending order (ties: lowest id first); there top-k, top-p and min-p are
               each a prefix, so the shortest prefix is what may be drawn

Weights are float32 exp(logit - max), summed in float64.

Nothing in `sample` waits for the device: what is uploaded waits in pinned memory, and what decides
how a row goes on is either known on the host, or found out in `finish`, when the tokens are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engines.api import TokenLogprobs
from engines.drafts import Drafts
from engines.guides.lanes import LaneGuides, Masks
from engines.noise import uniform
from engines.step import LaneStart
from engines.torch.sampling_state import COLDEST, HUGE, Drawn, Edits, Int64Array, SamplingState
from engines.torch.staging import Arriving, download, upload

# How many of the most likely tokens are sorted first; a row whose mass lies deeper sorts them all.
SHORT_LIST = 256


@dataclass(frozen=True, slots=True)
class Cut:
    """Samples that were drawn from the most likely tokens, and may need all of them."""

    samples: Int64Array
    enough: Tensor  # bool [cut]: the most likely tokens held all that may be drawn
    weights: Tensor  # float32 [cut, vocab]
    noise: Tensor  # float64 [cut]


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of the samples that asked for them."""

    samples: Int64Array
    all: Tensor  # float32 [asked, vocab]
    top_ids: Tensor  # int64 [asked, most]
    reported: Tensor  # float32 [asked, 1 + most], the sampled token's first


@dataclass(frozen=True, slots=True)
class Draw:
    """Sampled tokens on their way, and what to report about them."""

    lanes: Int64Array
    arriving: Arriving  # tokens, healthy, enough in one array of int64; reported and top_ids
    cut: Cut | None
    scores: Scores | None
    drafts: Drafts | None = None  # where some samples may not count


class Sampler:
    """Samples for lanes; knows each lane's parameters, history and guides."""

    def __init__(self, *, max_lanes: int, vocab: int, guides: LaneGuides | None = None) -> None:
        self._state = SamplingState(max_lanes, vocab)
        self._guides = LaneGuides(vocab, None) if guides is None else guides

    def start(self, start: LaneStart) -> None:
        """A sequence takes a lane."""
        self._state.start(start)
        self._guides.start(start)

    def sample(self, raw: Tensor, lanes: Int64Array, drafts: Drafts | None = None) -> Draw:
        """One token per lane from raw float32 logits [lanes, vocab].

        Each lane at most once, or as often as it has drafts and once more.
        """
        # A sum is finite only if all it adds is: a fifteenth of the time of looking at each.
        healthy = torch.isfinite(raw.sum(dim=-1)).all()
        masks, banned = self._guides.masks(lanes), self._guides.banned(lanes)
        if masks is None and banned is None and self._state.plain(lanes):
            return replace(_sent(lanes, _likeliest(raw), healthy), drafts=drafts)
        logits = raw
        if banned is not None or self._state.edited(lanes):
            logits = _edited(raw.clone(), self._state.edits(lanes).banning(banned))
        if masks is not None:
            logits = _masked(logits, masks)
        places = self._state.generated[lanes] + (0 if drafts is None else drafts.offsets)
        tokens, cut = self._choose(logits, lanes, places)
        draw = _sent(lanes, tokens, healthy, cut, self._scores(lanes, tokens, raw))
        return replace(draw, drafts=drafts)

    def finish(self, draw: Draw) -> Drawn:
        """Wait for the device; count the tokens, and those they force, into their lanes.

        Raises FloatingPointError when the model produced nan or infinity.
        """
        found, *scores = (tensor.numpy() for tensor in draw.arriving.wait())
        tokens, healthy, enough = np.split(found, [len(draw.lanes), len(draw.lanes) + 1])
        if not healthy.all():
            raise FloatingPointError("the model produced logits that are not finite")
        if draw.cut is not None and not enough.all():
            tokens = self._deepened(draw.cut, tokens, draw.lanes, np.flatnonzero(enough == 0))
            scores = _rescored(draw.scores, tokens)
        counted = slice(None) if draw.drafts is None else draw.drafts.counted(tokens)
        self._state.advance(draw.lanes[counted], tokens[counted])
        steered = self._guides.advance(draw.lanes, tokens)
        for sample, forced in steered.forced.items():
            self._state.advance_one(int(draw.lanes[sample]), forced)
        return Drawn(tokens, self._reported(draw, scores), steered)

    def _choose(
        self, logits: Tensor, lanes: Int64Array, places: Int64Array
    ) -> tuple[Tensor, Cut | None]:
        """Greedy everywhere, then overwritten where a lane has a temperature."""
        tokens, found = _likeliest(logits), None
        state = self._state
        warm = state.temperature[lanes] >= COLDEST
        cut = (state.top_k[lanes] > 0) | (state.top_p[lanes] < 1) | (state.min_p[lanes] > 0)
        for short, rows in ((False, warm & ~cut), (True, warm & cut)):
            if rows.any():
                chosen = np.flatnonzero(rows)
                at = upload(chosen, logits.device)
                weights = self._weights(logits[at], lanes[chosen])
                noise = self._noise(lanes[chosen], places[chosen], logits.device)
                if short:
                    width = min(logits.shape[1], max(SHORT_LIST, int(state.top_k[lanes].max())))
                    drawn = self._draw_from_top(weights, noise, lanes[chosen], width)
                    tokens[at], found = drawn[0], Cut(chosen, drawn[1], weights, noise)
                else:
                    tokens[at] = _draw_whole(weights, noise)
        return tokens, found

    def _deepened(
        self, cut: Cut, tokens: Int64Array, lanes: Int64Array, deep: Int64Array
    ) -> Int64Array:
        """The tokens, with those drawn again from all tokens whose short list was too short."""
        samples, device = cut.samples[deep], cut.weights.device
        at = upload(deep, device)
        weights = cut.weights[at]
        drawn, _ = self._draw_from_top(weights, cut.noise[at], lanes[samples], weights.shape[1])
        tokens = tokens.copy()
        tokens[samples] = drawn.cpu().numpy()
        return tokens

    def _weights(self, logits: Tensor, lanes: Int64Array) -> Tensor:
        """Unnormalised probabilities in [0, 1], the most likely token's being 1."""
        # Subtracting first keeps any temperature from overflowing.
        shifted = logits - logits.amax(dim=-1, keepdim=True)
        return torch.exp(shifted / upload(self._state.temperature[lanes], logits.device)[:, None])

    def _noise(self, lanes: Int64Array, places: Int64Array, device: torch.device) -> Tensor:
        state = self._state
        return upload(uniform(state.seed[lanes], state.choice[lanes], places), device)

    def _draw_from_top(
        self, weights: Tensor, noise: Tensor, lanes: Int64Array, width: int
    ) -> tuple[Tensor, Tensor]:
        """Tokens, and whether the `width` most likely ones held all that each row may draw."""
        state, device = self._state, weights.device
        ids = descending(weights, width)
        ordered = weights.gather(1, ids)
        mass = ordered.cumsum(dim=-1, dtype=torch.float64)
        ends = torch.full((len(lanes),), width, device=device)
        top_k = upload(state.top_k[lanes], device)
        ends = torch.where(top_k > 0, torch.minimum(top_k, ends), ends)
        total = torch.where(
            top_k > 0,
            mass.gather(1, (ends - 1)[:, None])[:, 0],
            weights.sum(1, dtype=torch.float64),
        )
        # The shortest prefix whose mass reaches top_p, and never less than one token.
        top_p = upload(state.top_p[lanes], device)
        reached = (mass < (top_p * total)[:, None]).sum(dim=-1) + 1
        ends = torch.where(top_p < 1, torch.minimum(ends, reached), ends)
        min_p = upload(state.min_p[lanes], device)
        likely = (ordered >= min_p[:, None]).sum(dim=-1)
        ends = torch.where(min_p > 0, torch.minimum(ends, likely), ends).clamp(min=1)
        enough = (ends < width) | (top_k > 0) | (width == weights.shape[1])
        place = _invert(mass, mass.gather(1, (ends - 1)[:, None])[:, 0], noise)
        place = torch.minimum(place, ends - 1)
        return ids.gather(1, place[:, None])[:, 0], enough

    def _scores(self, lanes: Int64Array, tokens: Tensor, raw: Tensor) -> Scores | None:
        """Log-probabilities of the raw distribution for the samples that asked for them."""
        asked = self._state.logprobs[lanes]
        samples = np.flatnonzero(asked >= 0)
        if not len(samples):
            return None
        at = upload(samples, raw.device)
        scores = torch.log_softmax(raw[at], dim=-1)
        top_ids = descending(scores, int(asked.max()))
        ids = torch.cat([tokens[at][:, None], top_ids], dim=1)
        return Scores(samples, scores, top_ids, scores.gather(1, ids))

    def _reported(self, draw: Draw, scores: Sequence[np.ndarray]) -> dict[int, TokenLogprobs]:
        if draw.scores is None:
            return {}
        values, ids = (array.tolist() for array in scores)
        asked = self._state.logprobs[draw.lanes[draw.scores.samples]].tolist()
        return {
            int(sample): TokenLogprobs(own[0], tuple(zip(top[:k], own[1 : k + 1], strict=True)))
            for sample, own, top, k in zip(draw.scores.samples, values, ids, asked, strict=True)
        }


def _likeliest(logits: Tensor) -> Tensor:
    """The first of each row's largest; on CPUs by numpy: 0.3 ms for 64 rows of 32,000, not 2.6."""
    if logits.is_cuda:
        return logits.argmax(dim=-1)
    return torch.from_numpy(logits.numpy().argmax(axis=-1))


def _sent(
    lanes: Int64Array, tokens: Tensor, healthy: Tensor,
    cut: Cut | None = None, scores: Scores | None = None,
) -> Draw:  # fmt: skip
    """Start everything towards the host that `finish` will read."""
    enough = () if cut is None else (cut.enough.long(),)
    found = torch.cat([tokens, healthy[None].long(), *enough])
    told = () if scores is None else (scores.reported, scores.top_ids)
    return Draw(lanes, download(found, *told), cut, scores)


def _rescored(scores: Scores | None, tokens: Int64Array) -> list[np.ndarray]:
    """What to report of scores when tokens have changed."""
    if scores is None:
        return []
    own = upload(tokens[scores.samples], scores.all.device)[:, None]
    reported = scores.reported.clone()
    reported[:, :1] = scores.all.gather(1, own)
    return [reported.cpu().numpy(), scores.top_ids.cpu().numpy()]


def _edited(logits: Tensor, edits: Edits) -> Tensor:
    """Apply edits in their order, in place."""
    samples, tokens, factors = (upload(a, logits.device) for a in edits.scale)
    found = logits[samples, tokens]
    logits[samples, tokens] = torch.where(found > 0, found / factors, found * factors)
    samples, tokens, amounts = (upload(a, logits.device) for a in edits.penalties)
    logits[samples, tokens] -= amounts
    samples, tokens, amounts = (upload(a, logits.device) for a in edits.bias)
    logits[samples, tokens] += amounts
    samples, tokens = (upload(a, logits.device) for a in edits.banned)
    # Finite, so that a row of nothing but banned tokens still has a distribution.
    logits.clamp_(-HUGE, HUGE)
    logits[samples, tokens] = -2 * HUGE
    return logits


# What each byte of a mask adds to eight logits. Looked up and added: for 32 rows of 128,000 tokens
# 6 ms on the CPU, where torch.where or masked_fill take 50.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_ADDED = np.where(_BITS == 1, 0, -np.inf).astype(np.float32)


def _masked(logits: Tensor, masks: Masks) -> Tensor:
    """Infinitely unlikely wherever a mask is 0; a row keeps one token at least (SequenceGuide)."""
    device = logits.device
    packed = upload(masks.rows.view(np.uint8), device)
    added = upload(_ADDED, device).index_select(0, packed.flatten().int()).view(len(packed), -1)
    added = added[:, : logits.shape[1]]
    if len(masks.samples) == len(logits):
        return logits + added
    return logits.index_add(0, upload(masks.samples, device), added)


def _draw_whole(weights: Tensor, noise: Tensor) -> Tensor:
    mass = weights.cumsum(dim=-1, dtype=torch.float64)
    return _invert(mass, mass[:, -1], noise)


def _invert(mass: Tensor, total: Tensor, noise: Tensor) -> Tensor:
    """The first place whose cumulative mass exceeds noise * total; noise < 1 keeps it in range."""
    target = (noise * total)[:, None]
    return torch.searchsorted(mass, target, right=True)[:, 0].clamp(max=mass.shape[1] - 1)


def descending(values: Tensor, width: int) -> Tensor:
    """Ids int64 [rows, width] of the largest float32 values, equal ones by lowest id.

    topk leaves the order of ties open, so it sorts unique keys: the value's bits, made to order as
    integers do, above the complement of the id.
    """
    vocab = values.shape[1]
    # Adding zero turns -0.0 into 0.0, which compares equal but has other bits.
    bits = (values + 0.0).contiguous().view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ 0x7FFF_FFFF, bits)
    low = torch.arange(vocab - 1, -1, -1, device=values.device)
    keys = (ordered << 32) | low
    return vocab - 1 - (keys.topk(width, dim=-1).values & 0xFFFF_FFFF)
