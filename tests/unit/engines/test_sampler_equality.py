"""The sampler in numpy draws what the torch runner's does: same state, same noise, same token."""

import numpy as np
import pytest
import torch

from engines.openvino.sampler import Sampler
from engines.step import LaneStart
from engines.torch.sampler import Sampler as TorchSampler
from tests.support.sampling_shapes import SHAPES, make

VOCAB = 40
PROMPT = (3, 4, 4, 5)
GENERATED = (5, 6, 6, 6, 7)
ALLOWED = frozenset({0, 3, 10, 11, 31, 32, VOCAB - 1})


def drawn(sampler, rows, lanes):
    if isinstance(sampler, TorchSampler):
        return sampler.finish(sampler.sample(torch.from_numpy(rows), lanes))
    return sampler.sample(rows, lanes)


def both(rows, samplings, prompt=PROMPT, generated=GENERATED):
    """What both samplers draw from the same rows."""
    found = []
    for kind in (TorchSampler, Sampler):
        sampler = kind(max_lanes=len(samplings), vocab=rows.shape[1])
        for lane, sampling in enumerate(samplings):
            sampler.start(LaneStart(lane, lane % 3, sampling, prompt, generated))
        found.append(drawn(sampler, rows.copy(), np.arange(len(samplings))))
    return found


@pytest.mark.parametrize(("vocab", "spread"), [(40, 2), (600, 2), (5000, 0.1), (32000, 3)])
def test_both_samplers_draw_the_same(vocab, spread):
    """Every shape of parameters, with and without masks, ties, and log-probabilities."""
    rng = np.random.default_rng(vocab)
    few = frozenset(rng.integers(0, vocab, 30).tolist())
    samplings = [
        make(
            seed, **SHAPES[seed % len(SHAPES)], logprobs=seed % 4, allowed=few if seed % 5 else None
        )
        for seed in range(20 * len(SHAPES))
    ]
    rows = rng.normal(0, spread, (len(samplings), vocab)).astype(np.float32)
    rows[:, ::7] = np.round(rows[:, ::7])  # many equal ones
    theirs, ours = both(rows, samplings)
    assert ours.tokens.tolist() == theirs.tokens.tolist()
    assert ours.logprobs.keys() == theirs.logprobs.keys()
    for sample, told in ours.logprobs.items():
        other = theirs.logprobs[sample]
        assert told.logprob == pytest.approx(other.logprob, abs=1e-5)
        assert [value for _, value in told.top] == pytest.approx(
            [value for _, value in other.top], abs=1e-5
        )
        raw = rows[sample]
        assert [raw[token] for token, _ in told.top] == [raw[token] for token, _ in other.top]


def test_the_plugins_memory_stays_as_it_is():
    """The next step writes over it, and this one may still read it."""
    rows = np.random.default_rng(4).normal(0, 2, (len(SHAPES), VOCAB)).astype(np.float32)
    before = rows.copy()
    sampler = Sampler(max_lanes=len(SHAPES), vocab=VOCAB)
    for lane, shape in enumerate(SHAPES):
        allowed = ALLOWED if lane % 2 else None
        sampler.start(LaneStart(lane, 0, make(lane, **shape, allowed=allowed, logprobs=2), PROMPT))
    sampler.sample(rows, np.arange(len(SHAPES)))
    assert (rows == before).all()
