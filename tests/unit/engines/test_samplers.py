"""Both samplers draw what the parameters say, from a row's own logits and lane only."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from engines.api import Sampling
from engines.noise import uniform
from engines.openvino import sampler as in_numpy
from engines.step import LaneStart
from engines.torch.sampler import SHORT_LIST, _edited
from engines.torch.sampler import Sampler as TorchSampler
from engines.torch.sampling_state import SamplingState
from tests.support.sampling_shapes import SHAPES, make

VOCAB = 40
DRAWS = 6000
PROMPT = (3, 4, 4, 5)
GENERATED = (5, 6, 6, 6, 7)
LOGITS = np.random.default_rng(3).normal(0, 2, VOCAB).astype(np.float32)
LOGITS[[10, 11]] = LOGITS.max() - 0.5  # a tie near the top


class made:  # noqa: N801 - what the fixture below chooses
    """The class of the sampler that a test is about."""

    sampler = TorchSampler


@pytest.fixture(autouse=True, params=[TorchSampler, in_numpy.Sampler], ids=["torch", "numpy"])
def _sampler(request, monkeypatch):
    monkeypatch.setattr(made, "sampler", request.param)


def step(sampler, rows, lanes):
    """What is drawn from rows of logits."""
    if isinstance(sampler, TorchSampler):
        return sampler.finish(sampler.sample(torch.from_numpy(rows), lanes))
    return sampler.sample(rows, lanes)


def reference(logits, sampling, prompt=PROMPT, generated=GENERATED):
    """The distribution, written as plainly as the documentation of `Sampling`."""
    logits = logits.astype(np.float64).copy()
    for token in {*prompt, *generated}:
        factor = sampling.repetition
        logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
    for token in set(generated):
        logits[token] -= sampling.presence + sampling.frequency * generated.count(token)
    for token, bias in sampling.bias.items():
        logits[token] += bias
    if len(generated) < sampling.min_tokens:
        logits[list(sampling.stop_tokens)] = -np.inf
    if sampling.temperature == 0:
        return np.eye(len(logits))[logits.argmax()]
    probs = softmax(logits / sampling.temperature)
    order = np.argsort(-probs, kind="stable")
    if sampling.top_k:
        probs[order[sampling.top_k :]] = 0
        probs /= probs.sum()
    if sampling.top_p < 1:
        before = np.cumsum(probs[order]) - probs[order]
        probs[order[before >= sampling.top_p]] = 0
        probs /= probs.sum()
    probs[probs < sampling.min_p * probs.max()] = 0
    return probs / probs.sum()


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def draw(logits, samplings, *, prompt=PROMPT, generated=GENERATED, choice=0):
    """One token for each sampling, in one batch over the same logits; with log-probabilities."""
    sampler = made.sampler(max_lanes=len(samplings), vocab=logits.shape[-1])
    for lane, sampling in enumerate(samplings):
        sampler.start(LaneStart(lane, choice, sampling, prompt, generated))
    rows = np.broadcast_to(logits, (len(samplings), logits.shape[-1])).copy()
    drawn = step(sampler, rows, np.arange(len(samplings)))
    return drawn.tokens, drawn.logprobs


@pytest.mark.parametrize("parameters", SHAPES, ids=str)
def test_draws_follow_the_reference_distribution(parameters):
    """Chi-square over thousands of seeds; what has no probability is never drawn."""
    expected = reference(LOGITS, make(**parameters)) * DRAWS
    tokens, _ = draw(LOGITS, [make(seed, **parameters) for seed in range(DRAWS)])
    counts = np.bincount(tokens, minlength=VOCAB)
    assert not counts[expected == 0].any()
    rare = expected < 8
    expected, counts = (np.append(a[~rare], a[rare].sum()) for a in (expected, counts))
    kept = expected > 0
    if kept.sum() > 1:
        assert chisquare(counts[kept], expected[kept]).pvalue > 1e-3


@pytest.mark.parametrize("parameters", [{"top_p": 0.97}, {"min_p": 0.3}, {"top_p": 0.5}], ids=str)
def test_a_flat_distribution_reaches_beyond_the_short_list(parameters):
    """Over 3,000 almost equal tokens the nucleus is far longer than what is sorted first."""
    logits = np.random.default_rng(0).normal(0, 0.1, 3000).astype(np.float32)
    expected = reference(logits, make(**parameters), (), ())
    samplings = [make(seed, **parameters) for seed in range(1500)]
    tokens, _ = draw(logits, samplings, prompt=(), generated=())
    assert (expected[tokens] > 0).all()
    groups = np.arange(3000) % 30
    counts = np.bincount(groups[tokens], minlength=30)
    mass = np.bincount(groups, weights=expected, minlength=30)
    assert chisquare(counts, mass * 1500).pvalue > 1e-3


def test_greedy_takes_the_lowest_id_of_equals():
    """With and without the fast path (log-probabilities leave it)."""
    logits = np.array([0, 5, 1, 5, 5], np.float32)
    fast, _ = draw(logits, [make(temperature=0.0)], prompt=(), generated=())
    slow, _ = draw(logits, [make(temperature=0.0, logprobs=0)], prompt=(), generated=())
    assert (fast[0], slow[0]) == (1, 1)


def test_top_k_of_one_is_greedy():
    """Also among equal logits, at any temperature and seed."""
    logits = np.array([0, 5, 1, 5, 5], np.float32)
    samplings = [make(seed, top_k=1, temperature=3.0) for seed in range(50)]
    tokens, _ = draw(logits, samplings, prompt=(), generated=())
    assert set(tokens.tolist()) == {1}


def varied(count):
    rng = np.random.default_rng(5)
    return [make(seed, **SHAPES[rng.integers(len(SHAPES))], logprobs=3) for seed in range(count)]


def test_a_row_does_not_depend_on_its_batch():
    """64 lanes of mixed parameters, together and each alone: same tokens and log-probabilities."""
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 2, (64, 600)).astype(np.float32)
    samplings = varied(64)
    together, logprobs = draw(rows, samplings)
    for i, sampling in enumerate(samplings):
        alone, own = draw(rows[i], [sampling])
        assert alone[0] == together[i]
        assert own[0] == logprobs[i]


def test_seed_choice_and_position_each_change_the_draw():
    """And the same three give the same token."""
    flat = np.zeros(100_000, np.float32)

    def token(seed=1, choice=0, generated=()):
        tokens, _ = draw(flat, [make(seed)], prompt=(), generated=generated, choice=choice)
        return int(tokens[0])

    assert token() == token()
    assert len({token(), token(seed=2), token(choice=1), token(generated=(9,))}) == 4


def test_a_lane_resumes_where_its_log_ends():
    """Penalties, bans and noise after a replayed log equal those of the uninterrupted run."""
    rows = np.random.default_rng(2).normal(0, 1, (30, VOCAB)).astype(np.float32)
    stops = frozenset({1, 2, 3})
    sampling = make(9, frequency=0.5, repetition=1.3, min_tokens=20, stop_tokens=stops)
    whole = run(rows, sampling, ())
    assert run(rows, sampling, whole[:13]) == whole
    assert not stops & set(whole[:20])


def run(rows, sampling, log):
    """Tokens of one lane over successive rows, the first of them given."""
    sampler = made.sampler(max_lanes=4, vocab=VOCAB)
    sampler.start(LaneStart(2, 0, sampling, PROMPT, log))
    tokens = list(log)
    for row in rows[len(log) :]:
        drawn = step(sampler, row[None], np.array([2])).tokens
        tokens.append(int(drawn[0]))
    return tokens


def test_edits_change_logits_by_value():
    """Repetition over prompt and output, the others over output only, then bias, then the ban."""
    sampling = make(
        presence=0.5,
        frequency=0.25,
        repetition=2.0,
        bias={4: 1.0, 6: -1.0, VOCAB + 5: 9.0},
        min_tokens=9,
        stop_tokens=frozenset({0, VOCAB + 1}),
    )
    state = SamplingState(1, VOCAB)
    state.start(LaneStart(0, 0, sampling, PROMPT, GENERATED))
    logits = np.ones((1, VOCAB), np.float32)
    logits[0, 5] = -1.0
    edits = state.edits(np.array([0]))
    if made.sampler is TorchSampler:
        edited = _edited(torch.from_numpy(logits.copy()), edits)[0]
    else:
        edited = in_numpy._edited(logits, edits)[0]
    assert edited[3] == 0.5  # prompt: repetition
    assert edited[4] == 0.5 + 1.0  # prompt: repetition, bias
    assert edited[5] == -2.0 - 0.5 - 0.25  # both, negative, generated once
    assert edited[6] == 0.5 - 0.5 - 0.75 - 1.0  # generated three times, bias
    assert edited[7] == 0.5 - 0.5 - 0.25
    assert edited[8] == 1.0
    assert edited[0] < -1e30


def test_logprobs_are_those_of_the_raw_distribution():
    """Neither temperature, bias nor truncation show in them."""
    sampling = make(temperature=0.3, top_k=3, bias={7: 100.0}, logprobs=4)
    tokens, logprobs = draw(LOGITS, [sampling])
    raw = np.log(softmax(LOGITS.astype(np.float64)))
    order = np.argsort(-LOGITS, kind="stable")[:4]
    assert tokens[0] == 7
    assert logprobs[0].logprob == pytest.approx(raw[7], abs=1e-5)
    assert [token for token, _ in logprobs[0].top] == order.tolist()
    assert [value for _, value in logprobs[0].top] == pytest.approx(raw[order], abs=1e-5)


def test_logprobs_come_only_where_asked_and_as_many():
    """None, zero and up to twenty in one batch, keyed by sample."""
    samplings = [make(logprobs=k) for k in (None, 0, 20, None, 2)]
    _, logprobs = draw(LOGITS, samplings)
    assert {i: len(found.top) for i, found in logprobs.items()} == {1: 0, 2: 20, 4: 2}


def test_logits_that_are_not_finite_are_fatal():
    """There is no going on with a broken model."""
    logits = LOGITS.copy()
    logits[3] = np.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        draw(logits, [make()])


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 1e-300},
        {"temperature": 1e300},
        {"bias": dict.fromkeys(range(VOCAB), 1e308)},
        {"bias": {3: -1e308}, "repetition": 1e-300, "frequency": 1e300, "presence": -1e300},
        {"min_tokens": 10, "stop_tokens": frozenset(range(VOCAB))},
        {"top_p": 0.0, "min_p": 1.0, "top_k": 1},
        {"seed": -(2**70)},
    ],
    ids=str,
)
def test_no_parameter_can_break_a_step(parameters):
    """Absurd values, should they get this far, still give a token."""
    tokens, _ = draw(LOGITS, [make(**parameters), make(1)])
    assert ((tokens >= 0) & (tokens < VOCAB)).all()


def test_a_lane_is_taken_over_clean():
    """Nothing of the previous occupant remains."""
    sampler = made.sampler(max_lanes=1, vocab=VOCAB)
    row = LOGITS[None].copy()
    sampler.start(LaneStart(0, 0, make(bias={7: 100.0}, logprobs=1), PROMPT, GENERATED))
    first = step(sampler, row, np.array([0])).tokens
    sampler.start(LaneStart(0, 0, make(temperature=0.0), PROMPT))
    second = step(sampler, row, np.array([0]))
    assert (first[0], second.tokens[0], second.logprobs) == (7, LOGITS.argmax(), {})


ALLOWED = frozenset({0, 3, 10, 11, 31, 32, VOCAB - 1})


@pytest.mark.parametrize("sampling", SHAPES, ids=str)
def test_masked_rows_draw_from_the_rest_as_if_it_were_all(sampling):
    """Beside rows without a mask, and with every parameter: the distribution over what is left."""
    left = LOGITS.copy()
    left[[token not in ALLOWED for token in range(VOCAB)]] = -np.inf
    expected = reference(left, make(**sampling))
    seeds = [make(seed, **sampling, allowed=ALLOWED) for seed in range(1500)]
    drawn, _ = draw(LOGITS, [*seeds, make(1, **sampling)])
    counts = np.bincount(drawn[:-1], minlength=VOCAB)
    assert set(np.flatnonzero(counts).tolist()) <= set(np.flatnonzero(expected > 1e-12).tolist())
    often = expected * len(seeds) >= 5
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * len(seeds)
    if len(observed[wanted > 0]) > 1:
        assert chisquare(observed[wanted > 0], wanted[wanted > 0]).pvalue > 1e-4
    alone, _ = draw(LOGITS, [make(1, **sampling)])
    assert drawn[-1] == alone[0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banned_tokens_are_drawn_only_where_a_mask_leaves_nothing_else(temperature):
    """A ban is finite, a mask is not: there is always a token to draw, never one that is masked."""
    both = {"temperature": temperature, "min_tokens": 9, "stop_tokens": frozenset({10, 11})}
    (free,), _ = draw(LOGITS, [make(3, **both, bad_words=((12,),), allowed=frozenset({7, 10, 12}))])
    assert free == 7
    drawn, _ = draw(
        LOGITS,
        [make(s, **both, bad_words=((12,),), allowed=frozenset({10, 12})) for s in range(50)],
    )
    assert set(drawn.tolist()) <= {10, 12}


def test_a_row_whose_mass_lies_deep_is_drawn_again_and_reported_as_drawn():
    """Beside rows that are done: the token and its log-probability are those of one draw."""
    vocab = 4 * SHORT_LIST
    rows = np.zeros((3, vocab), np.float32)
    rows[0] = -np.arange(vocab) / vocab  # the short list holds less than half of the mass
    rows[1, 5] = 50.0
    deep = Sampling(9, temperature=1.0, top_p=0.99, seed=8, logprobs=1)
    near = Sampling(9, temperature=1.0, top_p=0.5, seed=3, logprobs=1)
    sampler = TorchSampler(max_lanes=3, vocab=vocab)
    for lane, sampling in enumerate((deep, near, Sampling(9, temperature=0.0))):
        sampler.start(LaneStart(lane, 0, sampling, PROMPT, ()))
    drawn = sampler.finish(sampler.sample(torch.from_numpy(rows), np.arange(3)))
    token = int(drawn.tokens[0])
    noise = uniform(np.array([8], np.uint64), np.array([0]), np.array([0]))[0]
    assert token == pytest.approx(np.searchsorted(softmax(rows[0]).cumsum(), 0.99 * noise), abs=2)
    assert token > SHORT_LIST
    assert drawn.tokens[1:].tolist() == [5, 0]
    assert drawn.logprobs[0].logprob == pytest.approx(np.log(softmax(rows[0])[token]), abs=1e-4)
    assert drawn.logprobs[1].logprob == pytest.approx(0.0, abs=1e-4)
