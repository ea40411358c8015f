"""The torch runner keeps the step contract, and its float32 logits do not depend on the batch."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from engines.api import Sampling
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from tests.support.plans import Driver, Run
from tests.support.tiny_models import by_name, greedy_truth, model_dir, prompts

BLOCK = 8


@pytest.fixture(scope="module")
def loaded():
    return open_model(model_dir(by_name("llama")), device="cpu")


def driver(loaded, seed=0):
    runner = TorchRunner(loaded, num_blocks=200, block_size=BLOCK, max_lanes=32)
    return Driver(runner, num_blocks=200, block_size=BLOCK, seed=seed)


def test_a_launched_plan_may_be_overwritten(loaded):
    """Its arrays belong to the scheduler again as soon as launch returns."""
    drive, other = driver(loaded), driver(loaded)
    plan = drive.plan([Run(drive.start(0, [5, 6, 7]), 3)])
    ticket = drive.runner.launch(plan)
    for name in ("tokens", "positions", "write_slots", "tables", "sample_rows", "sample_lanes"):
        getattr(plan, name)[:] = 1
    seq = other.start(0, [5, 6, 7])
    other.step([Run(seq, 3)])
    assert drive.runner.collect(ticket).tokens.tolist() == seq.generated


def test_a_step_without_samples_returns_none(loaded):
    """A chunk that does not reach the end of its prompt."""
    drive = driver(loaded)
    plan = drive.plan([Run(drive.start(0, [5, 6, 7, 8]), 2)])
    result = drive.runner.collect(drive.runner.launch(plan))
    assert (len(result.tokens), result.tokens.dtype, result.logprobs) == (0, np.int32, {})


def test_foreign_tickets_and_closed_runners_are_refused(loaded):
    """Both are bugs of the caller."""
    drive = driver(loaded)
    plan = drive.plan([Run(drive.start(0, [5, 6]), 2)])
    with pytest.raises(TypeError, match="not a ticket"):
        drive.runner.collect(object())
    drive.runner.close()
    drive.runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        drive.runner.launch(plan)


def test_a_broken_model_is_fatal(loaded):
    """Logits that are not numbers end the engine instead of becoming tokens."""
    broken = open_model(model_dir(by_name("llama")), device="cpu")
    broken.module.model.norm.weight.data[0] = float("nan")
    drive = driver(broken)
    with pytest.raises(FloatingPointError):
        drive.step([Run(drive.start(0, [5, 6]), 2)])


def test_choices_of_one_prompt_draw_their_own_noise(loaded):
    """Several lanes sample one row, each as if it were alone."""
    hot = Sampling(max_tokens=8, temperature=3.0, seed=11)
    drive = driver(loaded)
    parent = drive.start(0, [5, 6, 7], hot)
    forks = drive.fork(parent, range(1, 8), hot)
    drive.step([Run(parent, 3)], forks=forks)
    alone = []
    for choice in range(8):
        other = driver(loaded)
        seq = other.start(0, [5, 6, 7], hot, choice=choice)
        other.step([Run(seq, 3)])
        alone += seq.generated
    assert [s.generated[0] for s in (parent, *forks)] == alone
    assert len(set(alone)) > 4


def test_seeded_sampling_does_not_depend_on_batch_chunks_or_blocks(loaded):
    """The same stream alone and among 15 others, in other chunks and other blocks."""
    hot = Sampling(max_tokens=30, temperature=1.5, top_p=0.9, frequency=0.4, seed=5, logprobs=2)
    start, *others = prompts(16, longest=60)
    drive = driver(loaded)
    alone = drive.start(0, start, hot)
    drive.finish([alone], 20)
    drive = driver(loaded, seed=9)
    seqs = [drive.start(3, start, hot)]
    seqs += [drive.start(10 + i, other) for i, other in enumerate(others)]
    while seqs[0].pending > 1:
        drive.step([Run(s, min(s.pending, 1 if s.generated else 7)) for s in seqs])
    drive.finish(seqs, 20)
    assert seqs[0].generated == alone.generated
    assert seqs[0].logprobs == alone.logprobs


@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "gemma2", "mistral-window", "mixtral", "gpt-oss"]
)
def test_float32_logits_are_bit_equal_whatever_the_batch(name):
    """Alone, in chunks beside others, and replayed as rows: the same bits (see the benchmark)."""
    loaded = open_model(model_dir(by_name(name)), device="cpu")
    start, *others = prompts(12, longest=70)
    log = [*start, *prompts(1, longest=9, seed=4)[0]]
    truth = last_logits(driver(loaded), log, [len(start)] + [1] * 9)
    assert torch.equal(
        truth, last_logits(driver(loaded), log, [7, 2, 31, len(start) - 40] + [1] * 9)
    )
    assert torch.equal(
        truth, last_logits(driver(loaded, 3), log, [20, len(start) - 20] + [1] * 9, others)
    )
    assert torch.equal(truth, last_logits(driver(loaded, 4), log, [len(start), -9]))


def last_logits(drive, log, sizes, others=()):
    """Logits of the last token of a log computed in these steps (negative: split into rows)."""
    seq = drive.start(0, log)
    mates = [drive.start(1 + i, other) for i, other in enumerate(others)]
    for size in sizes[:-1]:
        drive.step([Run(seq, size), *(Run(m, m.pending) for m in mates)])
    runs = [Run(seq, abs(sizes[-1]), split=sizes[-1] < 0), *(Run(m, m.pending) for m in mates)]
    return drive.runner.logits(drive.plan(runs))[0]


def test_bfloat16_is_as_close_to_the_truth_as_transformers_own(loaded):
    """Against float32, our bfloat16 errs no more than eager attention in bfloat16."""
    path = model_dir(by_name("llama"))
    start = prompts(1, longest=60)[0]
    rows = torch.tensor([start])
    ours = driver(open_model(path, dtype="bfloat16", device="cpu"))
    found = ours.runner.logits(ours.plan([Run(ours.start(0, start), len(start))]))[0]
    truth, theirs = (
        AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
        .eval()(input_ids=rows)
        .logits[0, -1]
        .detach()
        .float()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert (found - truth).abs().mean() < 1.3 * (theirs - truth).abs().mean()


DEVICES = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.cuda,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
            ],
        ),
    ],
)


@DEVICES
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_that_move_are_what_they_were(device, dtype):
    """A sequence goes on in other blocks, which were written from bytes that the first ones had."""
    path = model_dir(by_name("llama"))
    prompt = prompts(1, longest=20)[0]
    stayed, moved = (driver(open_model(path, dtype=dtype, device=device)) for _ in range(2))
    there, here = (drive.start(0, prompt) for drive in (stayed, moved))
    for drive, seq in ((stayed, there), (moved, here)):
        drive.step([Run(seq, len(prompt))])
    read = moved.runner.read_blocks(here.table)
    assert {len(content) for content in read} == {moved.runner.block_bytes}
    others = [moved.free.pop() for _ in here.table]
    spoilt = [np.full_like(content, 63) for content in read]
    restores = [*zip(others, read, strict=True), *zip(here.table, spoilt, strict=True)]
    here.table[:] = others
    for step in range(6):
        stayed.step([Run(there, 1)])
        moved.step([Run(here, 1)], restores=() if step else restores)
    assert here.generated == there.generated


@DEVICES
def test_a_device_says_what_transformers_says(device):
    """Chunked prompt, then decoding, greedy in float32: the same tokens on every device."""
    path = model_dir(by_name("llama"))
    prompt = prompts(1, longest=20)[0]
    drive = driver(open_model(path, dtype="float32", device=device))
    seq = drive.start(0, prompt)
    drive.step([Run(seq, len(prompt) - 5)])
    drive.step([Run(seq, 5)])
    for _ in range(7):
        drive.step([Run(seq, 1)])
    assert seq.generated == greedy_truth(path, [prompt], 8)[0]
