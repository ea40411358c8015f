"""Parts of a decoder, each with its heads and columns, make the logits of the whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING

from engines.api import Sampling
from engines.bundled import penstock_tiny
from engines.errors import EngineDied, ModelRejected
from engines.torch.cuda.fused import FusedLayer, fuse
from engines.torch.cuda.plain import PlainKernels
from engines.torch.families import FAMILIES, ITEM_BYTES
from engines.torch.footprint import read_footprint
from engines.torch.linear import PackedLinear
from engines.torch.loading import open_model
from engines.torch.parallel.decoder import DividedDecoder
from engines.torch.parallel.frames import FIELDS, encoded, read_plan
from engines.torch.parallel.layout import DIVIDED, HEAD_NORMS, INPUTS, OUTPUTS, check_divisible
from engines.torch.parallel.sharding import Share, divide, join
from engines.torch.pooling_runner import PoolingRunner
from engines.torch.runner import TorchRunner
from tests.support.divided import Sums, over_threads, paged, part_in_thread, plain_cuda
from tests.support.plans import Driver, Run
from tests.support.tiny_models import (
    TINY_MODELS,
    Tiny,
    by_name,
    greedy_truth,
    model_dir,
    prompts,
    unpacked,
)

BLOCK, BLOCKS, LANES = 8, 200, 16
SIZES = {"num_blocks": BLOCKS, "block_size": BLOCK}
CLOSE = 1e-5
WHOLES = [
    tiny
    for tiny in TINY_MODELS
    if tiny.family in DIVIDED and tiny.config().num_key_value_heads % 2 == 0
]
BIASED = Tiny("granite-biased", "granite", {"mlp_bias": True, "attention_bias": True})

each_whole = pytest.mark.parametrize("tiny", [*WHOLES, BIASED], ids=lambda tiny: tiny.name)


def parts_of(tiny, ranks=2, **options):
    sums = Sums(ranks)
    return [
        part_in_thread(model_dir(tiny), Share(rank, ranks), sums, **options)
        for rank in range(ranks)
    ]


@contextmanager
def driven(loaded, decoder=None) -> Iterator[Driver]:
    runner = TorchRunner(loaded, **SIZES, max_lanes=LANES, decoder=decoder)
    try:
        yield Driver(runner, num_blocks=BLOCKS, block_size=BLOCK)
    finally:
        runner.close()


def logits_of(drive) -> list[torch.Tensor]:
    """Of a step with a chunk, a lone token and a whole prompt, and of one that decodes."""
    seqs = [drive.start(lane, start) for lane, start in enumerate(prompts(3, longest=60))]
    mixed = drive.plan([Run(seqs[0], 37), Run(seqs[1], 1), Run(seqs[2], seqs[2].pending)])
    first = drive.runner.logits(mixed).clone()
    for seq, rows in zip(seqs, (37, 1, seqs[2].pending), strict=True):
        seq.computed += rows
    rest = drive.runner.logits(drive.plan([Run(seqs[0], seqs[0].pending)])).clone()
    return [first, rest]


def are_as_one(tiny, parts) -> None:
    """Hold the logits of parts against those of a model in one."""
    with driven(open_model(model_dir(tiny), device="cpu")) as drive:
        expected = logits_of(drive)
    with driven(parts[0], over_threads(parts, **SIZES, max_rows=LANES)) as drive:
        found = logits_of(drive)
    torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)


@each_whole
def test_two_parts_make_the_logits_of_one(tiny):
    """Every family that is divided: biases, norms of heads, tied heads, windows."""
    are_as_one(tiny, parts_of(tiny))


@pytest.mark.parametrize("name", ["llama-mha-tied", "cohere", "gemma3", "starcoder2"])
def test_two_parts_say_what_transformers_says(name):
    """Greedy tokens in float32: chunks beside decoding rows, then decoding alone."""
    tiny = by_name(name)
    parts, starts = parts_of(tiny), prompts(3, longest=60)
    with driven(parts[0], over_threads(parts, **SIZES, max_rows=LANES)) as drive:
        seqs = [drive.start(lane, start) for lane, start in enumerate(starts)]
        drive.step([Run(seqs[0], 37), Run(seqs[1], 1), Run(seqs[2], seqs[2].pending)])
        drive.finish(seqs, 6)
    assert [seq.generated[:6] for seq in seqs] == greedy_truth(model_dir(tiny), starts, 6)


def test_four_parts_have_a_head_each():
    """As many as there are KV heads."""
    tiny = by_name("llama-mha-tied")
    parts = parts_of(tiny, ranks=4)
    assert [part.facts.kv_heads for part in parts] == [1] * 4
    are_as_one(tiny, parts)


@pytest.mark.parametrize("name", ["llama-3-rope", "qwen3", "granite", "gemma2"])
def test_parts_make_the_whole_by_the_decoder_for_cuda_too(name):
    """Fused or not, without graphs; on a CPU by plain kernels."""
    tiny = by_name(name)
    with driven(open_model(model_dir(tiny), device="cpu")) as drive:
        expected = logits_of(drive)
    sums, parts = Sums(2), []
    for rank in range(2):
        loaded = unpacked(tiny)
        facts = divide(loaded.module, loaded.facts, Share(rank, 2))
        join(loaded.module, sums.of(rank))
        parts.append(replace(loaded, facts=facts))
    with driven(parts[0], over_threads(parts, plain_cuda, **SIZES, max_rows=LANES)) as drive:
        found = logits_of(drive)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_layers_of_a_part_are_fused_all_the_same():
    """The sum stays with the product that is taken over as it is."""
    loaded = unpacked(by_name("qwen3"))
    divide(loaded.module, loaded.facts, Share(1, 2))
    fuse(loaded.module, PlainKernels())
    assert {type(layer) for layer in loaded.module.base_model.layers} == {FusedLayer}


def test_what_listens_to_the_first_part_hears_the_whole():
    """Log-probabilities of a prompt come from hidden states, which every part has."""
    tiny, asks = by_name("llama"), Sampling(max_tokens=4, temperature=0.0, prompt_logprobs=2)

    def scores(runner):
        drive = Driver(runner, num_blocks=BLOCKS, block_size=BLOCK)
        plan = drive.plan([Run(drive.start(0, prompts(1, longest=20)[0], asks), 20)])
        told = runner.collect(runner.launch(plan)).prompt_logprobs[0]
        runner.close()
        return [entry.logprob for entry in told]

    one = open_model(model_dir(tiny), device="cpu")
    expected = scores(PoolingRunner(TorchRunner(one, **SIZES, max_lanes=LANES), one))
    parts = parts_of(tiny)
    decoder = over_threads(parts, **SIZES, max_rows=LANES)
    divided = TorchRunner(parts[0], **SIZES, max_lanes=LANES, decoder=decoder)
    assert scores(PoolingRunner(divided, parts[0])) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("family", sorted(DIVIDED))
def test_families_are_divided_as_transformers_plans_them(family):
    """What its plan calls colwise and rowwise, and nothing beyond norms of heads."""
    plan = dict(CONFIG_MAPPING[family].base_model_tp_plan)
    named = {kind: {key.rpartition(".")[2] for key in plan if plan[key] == kind} for kind in
             set(plan.values())}  # fmt: skip
    assert named.pop("colwise") <= OUTPUTS
    assert named.pop("rowwise") <= INPUTS
    assert set().union(*named.values()) <= HEAD_NORMS
    assert all("layers.*" in key for key in plan)


@each_whole
@pytest.mark.parametrize("dtype", ITEM_BYTES)
def test_a_part_holds_what_is_planned(tiny, dtype):
    """Weights and blocks, byte for byte, in either precision."""
    loaded = parts_of(tiny, dtype=dtype)[0]
    found, packs = read_footprint(model_dir(tiny)), False
    weights = {each.data_ptr(): each for each in loaded.module.parameters()}
    held = sum(each.numel() * each.itemsize for each in weights.values())
    for part in loaded.module.modules():
        if isinstance(part, PackedLinear):
            packs = True
            held += part._packed.numel() * part._packed.element_size()
    item = ITEM_BYTES[dtype]
    assert held == found.weight_bytes(item, packs=packs, ranks=2)
    decoder = paged(loaded, **SIZES, max_rows=LANES)
    assert decoder.block_bytes * 2 == found.kv_bytes_per_token(item) * BLOCK
    decoder.close()


@pytest.mark.parametrize(
    ("name", "ranks", "told"),
    [
        ("llama", 4, "--tensor-parallel 4: 2 KV heads cannot be shared by 4"),
        ("llama-mqa-wide-heads", 2, "--tensor-parallel 2: 1 KV heads cannot be shared by 2"),
        ("mixtral", 2, "mixtral is not divided; families that are: cohere, "),
        ("phi3", 2, "phi3 is not divided"),
        ("gpt-oss", 2, "gpt_oss is not divided"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_numbers(name, ranks, told):
    """Before anything is loaded."""
    path = model_dir(by_name(name))
    with pytest.raises(ModelRejected, match=told):
        check_divisible(path, read_footprint(path), ranks)


def test_an_mlp_that_cannot_be_divided_is_refused_with_numbers():
    """The bundled model's five KV heads could be."""
    path = penstock_tiny()
    with pytest.raises(ModelRejected, match="an MLP of 896 columns cannot be shared by 5"):
        check_divisible(path, read_footprint(path), 5)
    assert set(FAMILIES) > DIVIDED


def a_plan():
    """A chunk and a row, with a copy, as the driver plans them."""
    with driven(open_model(model_dir(by_name("llama")), device="cpu")) as drive:
        first, second = drive.start(0, [5, 6, 7, 8]), drive.start(1, [9])
        return drive.plan([Run(first, 3), Run(second, 1)], copies=[(4, 5), (6, 7)])


def test_a_plan_arrives_as_it_was_sent():
    """Arrays, their lengths and the copies; then the next one."""
    sent = a_plan()
    stream = BytesIO(encoded(sent) + encoded(replace(sent, copies=())))
    for copies in (((4, 5), (6, 7)), ()):
        got = read_plan(stream)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))
            assert getattr(got, name).dtype == np.int32
        assert got.copies == copies
    assert read_plan(stream) is None


@pytest.mark.parametrize("kept", [0, 3, 30, 44, 60])
def test_a_plan_that_breaks_off_is_none(kept):
    """Whoever sent it is gone."""
    frame = encoded(a_plan())
    assert len(frame) > kept
    assert read_plan(BytesIO(frame[:kept])) is None


def test_blocks_of_a_divided_model_do_not_move():
    """Each part has but its own heads of a block: said, not done by half."""
    block = np.zeros(4, np.uint8)
    for moved in (replace(a_plan(), saves=(1,)), replace(a_plan(), restores=((1, block),))):
        with pytest.raises(ValueError, match="not saved and restored"):
            encoded(moved)
    parts = parts_of(by_name("llama"))
    decoder = over_threads(parts, **SIZES, max_rows=LANES)
    with pytest.raises(ValueError, match="not saved"):
        decoder.save([1])
    assert decoder.save([]) == []
    decoder.close()


class Broken:
    """Other parts of which one has ended."""

    def __init__(self, why):
        self.why, self.closed = why, False

    def send(self, frame):
        raise BrokenPipeError

    def ended(self):
        return self.why

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    ("why", "error"), [("process 1 of 2 of the model ended: -9", EngineDied), (None, OSError)]
)
def test_a_step_that_fails_ends_all_parts(why, error):
    """The others would wait for ever; what has ended is named."""
    others = Broken(why)
    own = paged(open_model(model_dir(by_name("llama")), device="cpu"), **SIZES, max_rows=LANES)
    decoder = DividedDecoder(own, others)
    with pytest.raises(error, match=why):
        decoder.logits(a_plan())
    assert others.closed
    with pytest.raises(RuntimeError, match="closed"):
        decoder.logits(a_plan())
    with pytest.raises(RuntimeError, match="closed"):
        own.logits(a_plan())
