"""On an NVIDIA GPU: kernels in bfloat16, graphs, and the tokens of transformers."""

import pytest
import torch

from engines.torch.decoders import open_decoder
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from tests.support.plans import Driver, Run
from tests.support.tiny_models import TINY_MODELS, by_name, greedy_truth, model_dir, prompts

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]
SIZES = {"num_blocks": 200, "block_size": 8}


def driver(name, *, graphs="start", dtype="float32"):
    loaded = open_model(model_dir(by_name(name)), device="cuda", dtype=dtype)
    decoder = open_decoder(loaded, **SIZES, max_rows=16, graphs=graphs)
    runner = TorchRunner(loaded, **SIZES, max_lanes=16, decoder=decoder)
    return Driver(runner, **SIZES)


@pytest.mark.parametrize("name", [tiny.name for tiny in TINY_MODELS])
def test_every_family_says_what_transformers_says(name):
    """Greedy float32 tokens: chunks beside decoding rows, then steps replayed from graphs."""
    drive = driver(name)
    starts = prompts(3, longest=60)
    seqs = [drive.start(lane, start) for lane, start in enumerate(starts)]
    drive.step([Run(seqs[0], 37), Run(seqs[1], 1), Run(seqs[2], seqs[2].pending)])
    drive.finish(seqs, 6)
    assert [seq.generated[:6] for seq in seqs] == greedy_truth(model_dir(by_name(name)), starts, 6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_graph_gives_the_bits_of_the_same_kernels_launched_by_hand(dtype):
    """Captured at start, when needed, never: the same logits, step by step."""
    found = []
    for graphs in ("start", "lazy", "never"):
        drive = driver("llama", graphs=graphs, dtype=dtype)
        starts = prompts(5, longest=60)
        seqs = [drive.start(lane, start) for lane, start in enumerate(starts)]
        drive.step([Run(seq, seq.pending) for seq in seqs])
        steps = []
        for count in (5, 3, 1, 4):
            runs = [Run(seq, 1) for seq in seqs[:count]]
            steps.append(drive.runner.logits(drive.plan(runs)).clone())
            drive.step(runs)
        found.append(torch.cat(steps))
        captured = len(drive.runner._decoder._buckets._graphs)
        assert (captured > 0) == (graphs != "never")
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[2])


def test_bfloat16_attention_is_what_plain_torch_says():
    """The interpreter cannot do it: here the kernels compute in the type they are for."""
    ours, plain = driver("llama", dtype="bfloat16"), driver("llama", dtype="bfloat16")
    from engines.torch.cuda.plain import PlainKernels  # noqa: PLC0415 - beside a GPU only

    plain.runner._decoder._kernels = PlainKernels()
    start, found = prompts(1, longest=60)[0], []
    for drive in (ours, plain):
        seq = drive.start(0, start)
        found.append(drive.runner.logits(drive.plan([Run(seq, len(start))])).clone())
    torch.testing.assert_close(*found, rtol=0, atol=0.15)


def test_seeded_sampling_and_scores_need_one_wait_per_step():
    """Whatever is asked for: a step is launched without asking the device anything."""
    from engines.api import Sampling  # noqa: PLC0415

    drive = driver("llama")
    asked = Sampling(max_tokens=30, temperature=1.5, top_p=0.9, frequency=0.4, seed=5, logprobs=2)
    seq = drive.start(0, prompts(1, longest=40)[0], asked)
    drive.finish([seq], 2)
    plan = drive.plan([Run(seq, 1)])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ticket = drive.runner.launch(plan)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(drive.runner.collect(ticket).tokens) == 1
