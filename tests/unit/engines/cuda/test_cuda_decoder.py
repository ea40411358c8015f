"""The decoder for CUDA, on a CPU: plain kernels, no graphs, and the tokens of the reference."""

import pytest
import torch
from torch import nn

from engines.api import Sampling
from engines.torch.cuda.decoder import CudaDecoder, Sizes, not_captured
from engines.torch.cuda.fused import FusedAttention, FusedLayer, FusedMlp, FusedNorm, fuse
from engines.torch.cuda.plain import PlainKernels
from engines.torch.decoders import open_decoder
from engines.torch.loading import open_model
from engines.torch.paged import PagedDecoder
from engines.torch.pooling_runner import PoolingRunner
from engines.torch.runner import TorchRunner
from tests.support.plans import Driver, Run
from tests.support.tiny_models import (
    TINY_MODELS,
    by_name,
    greedy_truth,
    model_dir,
    prompts,
    unpacked,
)

BLOCK, BLOCKS, LANES = 8, 200, 16


def driver(loaded, decoder=None, seed=0):
    runner = TorchRunner(
        loaded, num_blocks=BLOCKS, block_size=BLOCK, max_lanes=LANES, decoder=decoder
    )
    return Driver(runner, num_blocks=BLOCKS, block_size=BLOCK, seed=seed)


def cuda_driver(name, seed=0):
    loaded = unpacked(by_name(name))
    decoder = CudaDecoder(loaded, Sizes(BLOCKS, BLOCK, LANES), PlainKernels())
    return driver(loaded, decoder, seed)


def reference():
    return driver(open_model(model_dir(by_name("llama")), device="cpu"))


@pytest.mark.parametrize("name", [tiny.name for tiny in TINY_MODELS])
def test_every_family_says_what_transformers_says(name):
    """Greedy float32 tokens, with chunks beside decoding rows, then decoding in a bucket."""
    drive = cuda_driver(name)
    starts = prompts(3, longest=60)
    seqs = [drive.start(lane, start) for lane, start in enumerate(starts)]
    drive.step([Run(seqs[0], 37), Run(seqs[1], 1), Run(seqs[2], seqs[2].pending)])
    drive.finish(seqs, 6)
    assert [seq.generated[:6] for seq in seqs] == greedy_truth(model_dir(by_name(name)), starts, 6)


@pytest.mark.parametrize("name", ["llama-3-rope", "qwen2-window-yarn", "qwen3", "mistral-window"])
def test_layers_of_llamas_kind_are_fused(name):
    """All of them, so that none is slow unnoticed."""
    module = unpacked(by_name(name)).module
    fuse(module, PlainKernels())
    kinds = {type(layer) for layer in module.base_model.layers}
    assert kinds == {FusedLayer}
    assert {type(layer.mlp) for layer in module.base_model.layers} == {FusedMlp}
    assert isinstance(module.base_model.norm, FusedNorm)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("granite", {FusedAttention, FusedMlp, FusedNorm}),
        ("mixtral", {FusedAttention, FusedNorm}),
        ("smollm3", {FusedMlp, FusedNorm}),
        ("phi3", {FusedNorm}),
        ("gemma2", set()),
        ("gpt-oss", set()),
    ],
)
def test_only_what_is_known_is_fused(name, kinds):
    """What computes something else stays as transformers wrote it."""
    module = unpacked(by_name(name)).module
    fuse(module, PlainKernels())
    fused = {FusedLayer, FusedAttention, FusedMlp, FusedNorm}
    assert {type(part) for part in module.modules()} & fused == kinds


def test_layers_of_foreign_products_stay():
    """A linear layer that is not torch's own, packed or quantised, cannot be joined."""

    class Other(nn.Linear):
        pass

    module = unpacked(by_name("llama")).module
    attention = module.model.layers[0].self_attn
    attention.k_proj = Other(64, 32, bias=False)
    fuse(module, PlainKernels())
    assert type(module.model.layers[0]).__name__ == "LlamaDecoderLayer"
    assert module.model.layers[0].self_attn is attention
    assert isinstance(module.model.layers[1], FusedLayer)


def test_a_decoding_step_does_not_see_its_padding():
    """Three rows in a bucket of four: the logits of the reference."""
    one, other = reference(), cuda_driver("llama")
    starts, found = prompts(3, longest=50), []
    for drive in (one, other):
        seqs = [drive.start(lane, start) for lane, start in enumerate(starts)]
        drive.step([Run(seq, seq.pending) for seq in seqs])
        found.append(drive.runner.logits(drive.plan([Run(seq, 1) for seq in seqs])).clone())
    torch.testing.assert_close(*found, rtol=0, atol=2e-5)


def test_rows_that_nobody_samples_are_computed_all_the_same():
    """A preempted sequence's output, replayed as rows of which only the last counts."""
    drive = cuda_driver("llama")
    start = prompts(1, longest=30)[0]
    seq = drive.start(0, start)
    drive.finish([seq], 6)
    again = drive.start(1, start, generated=seq.generated[:5])
    drive.step([Run(again, len(start))])
    drive.step([Run(again, 5, split=True)])
    assert again.generated == seq.generated


def test_choices_of_one_prompt_sample_one_row():
    """In a decoding step too: a prompt's last token may be a row of its own."""
    hot = Sampling(max_tokens=8, temperature=3.0, seed=11)
    drive, truth = cuda_driver("llama"), reference()
    drawn = []
    for each in (drive, truth):
        parent = each.start(0, [5, 6, 7], hot)
        forks = each.fork(parent, range(1, 6), hot)
        each.step([Run(parent, 2)])
        each.step([Run(parent, 1)], forks=forks)
        drawn.append([seq.generated for seq in (parent, *forks)])
    assert drawn[0] == drawn[1]


def test_whoever_wants_hidden_states_gets_a_real_pass():
    """Prompt scores and vectors, in steps that would else be replayed from a graph."""
    drive = cuda_driver("llama")
    scored = Sampling(max_tokens=4, temperature=0.0, prompt_logprobs=2)
    told = []
    for each in (drive, reference()):
        seq = each.start(0, [5, 6], scored)
        each.step([Run(seq, 1)])
        result = each.runner.collect(each.runner.launch(each.plan([Run(seq, 1)])))
        told.append(result.prompt_logprobs[0])
    assert len(told[0]) == 1
    assert told[0][0].logprob == pytest.approx(told[1][0].logprob, abs=1e-4)


def test_nobody_listens_to_a_model_that_only_talks():
    """A runner that pools hears the decoder while a lane wants a vector, and not else."""
    loaded = unpacked(by_name("llama"))
    decoder = CudaDecoder(loaded, Sizes(BLOCKS, BLOCK, LANES), PlainKernels())
    drive = driver(loaded, decoder)
    drive.runner = PoolingRunner(drive.runner, loaded)
    seq = drive.start(0, [5, 6, 7])
    drive.finish([seq], 3)
    assert not loaded.module.base_model._forward_hooks


def test_a_step_of_no_rows_has_no_logits():
    """One that only moves blocks."""
    drive = cuda_driver("llama")
    assert drive.runner.logits(drive.plan([])).shape == (0, 512)


def test_a_closed_decoder_refuses():
    """And closes twice."""
    drive = cuda_driver("llama")
    plan = drive.plan([Run(drive.start(0, [5, 6]), 2)])
    drive.runner.close()
    drive.runner.close()
    with pytest.raises(RuntimeError, match="closed"):
        drive.runner.launch(plan)


def test_what_asks_the_device_on_the_way_is_not_captured():
    """By name, so that an operator knows why."""
    assert not_captured(unpacked(by_name("llama-3-rope")).module) is None
    assert "experts" in not_captured(unpacked(by_name("mixtral")).module)
    assert "experts" in not_captured(unpacked(by_name("gpt-oss")).module)


def test_a_cpu_gets_the_reference():
    """Kernels of ours are for CUDA."""
    loaded = unpacked(by_name("llama"))
    made = open_decoder(loaded, num_blocks=4, block_size=BLOCK, max_rows=2)
    assert isinstance(made, PagedDecoder)


def test_a_table_too_long_for_a_graph_is_no_decoding_step():
    """Shared prefixes can make tables longer than all blocks together."""
    drive = cuda_driver("llama")
    buckets = drive.runner._decoder._buckets
    assert buckets.bucket(3, 10) == 4
    assert buckets.bucket(3, buckets._entries) is None
    assert buckets.bucket(LANES + 1, 10) is None
    packed = drive.runner._decoder._packer.pack(drive.plan([Run(drive.start(0, [5, 6]), 2)]))
    with pytest.raises(ValueError, match="not a bucket"):
        buckets.run(packed)
