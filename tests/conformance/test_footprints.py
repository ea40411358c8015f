"""What is planned from config.json and headers is what the runners allocate, byte for byte."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModel

from engines.bundled import penstock_tiny
from engines.torch.encoder_loading import open_encoder
from engines.torch.families import BARE, FAMILIES, ITEM_BYTES, read_facts
from engines.torch.footprint import CONTEXTS, TIED, Stored, read_footprint
from engines.torch.linear import PackedLinear, can_pack
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from engines.torch.vector_runner import VectorRunner
from gateway.memory_plan import Demand, Room, plan_memory
from gateway.plan_command import cpuinfo, packs
from tests.support.tiny_encoders import ENCODERS, RERANKERS, encoder_dir, sentence_files, with_files
from tests.support.tiny_models import TINY_MODELS, Tiny, by_name, model_dir

BLOCK = 16
CPU = torch.device("cpu")
BUNDLED = Tiny("penstock-tiny", "llama")
GIB = 1 << 30

each_model = pytest.mark.parametrize("tiny", [*TINY_MODELS, BUNDLED], ids=lambda tiny: tiny.name)
each_dtype = pytest.mark.parametrize("dtype", ITEM_BYTES)


def directory(tiny):
    return penstock_tiny() if tiny is BUNDLED else model_dir(tiny)


def held_bytes(module, *more):
    """Of all tensors a module computes with, each storage once, packed ones at their sizes."""
    tensors = {
        weight.data_ptr(): weight for part in (module, *more) for weight in part.parameters()
    }
    packed = [part._packed for part in module.modules() if isinstance(part, PackedLinear)]
    sizes = [weight.numel() * weight.itemsize for weight in tensors.values()]
    return sum(sizes) + sum(each.numel() * each.element_size() for each in packed)


def packing(dtype):
    return can_pack(CPU, getattr(torch, dtype))


def demand(dtype, **changes):
    base = Demand(
        dtype, on_gpu=False, packs=packing(dtype), max_running=4, max_context=0, block_size=BLOCK,
        step_tokens=64, kv_asked_bytes=0,
    )  # fmt: skip
    return replace(base, **changes)


def caches(runner):
    """Bytes of a runner's blocks."""
    kv = runner._decoder._kv
    return sum(cache.nbytes for cache in (*kv._keys, *kv._values))


@each_model
@each_dtype
def test_weights_and_blocks_are_as_planned(tiny, dtype):
    """Windows, experts, tied heads, fused projections: every family, both precisions."""
    path = directory(tiny)
    loaded = open_model(path, dtype=dtype, device="cpu")
    plan = plan_memory(read_footprint(path), demand(dtype), Room(4 * GIB, "test"))
    assert plan.weight_bytes == held_bytes(loaded.module)
    runner = TorchRunner(loaded, num_blocks=plan.kv.blocks, block_size=BLOCK, max_lanes=4)
    assert plan.kv.block_bytes == runner.block_bytes
    assert plan.kv_bytes == caches(runner)
    runner.close()


@each_model
def test_facts_are_those_of_the_loaded_configuration(tiny):
    """Read without transformers, the same as with it."""
    path = directory(tiny)
    facts, found = read_facts(path), read_footprint(path)
    assert found.max_context == facts.max_context
    assert found.vocab_size == facts.vocab_size
    assert found.layers == facts.layers
    assert found.dtype == facts.dtype
    for dtype, item_bytes in ITEM_BYTES.items():
        assert found.kv_bytes_per_token(item_bytes) == facts.kv_bytes_per_token(dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_silent_configuration_means_what_its_family_means(family):
    """The two defaults that headers do not tell."""
    config = CONFIG_MAPPING[family]()
    assert CONTEXTS[family] == config.max_position_embeddings
    assert (family in TIED) == config.tie_word_embeddings


@pytest.mark.parametrize("tiny", [*ENCODERS, *RERANKERS], ids=lambda tiny: tiny.name)
@each_dtype
def test_encoders_are_as_planned(tiny, dtype):
    """What they leave out of a checkpoint is not counted; they have no cache."""
    path = encoder_dir(tiny)
    loaded = open_encoder(path, dtype=dtype, device="cpu")
    module = getattr(loaded.head, "_module", loaded.module)
    plan = plan_memory(read_footprint(path), demand(dtype), Room(4 * GIB, "test"))
    assert plan.weight_bytes == held_bytes(module)
    assert (plan.kv, plan.kv_bytes) == (None, 0)


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "phi3", "mistral"])
def test_models_made_for_vectors_have_no_head_and_no_logits(tmp_path, name):
    """Published bare, with a dense layer behind: that is float32, and nothing is packed twice."""
    tiny = by_name(name)
    model = AutoModel.from_pretrained(model_dir(tiny), dtype=torch.float32)
    model.save_pretrained(tmp_path)
    with_files(tmp_path, sentence_files("last", normalise=True, dense=((64, 32, "Tanh"),)))
    dense = torch.nn.Linear(64, 32)
    named = {f"linear.{key}": value.detach() for key, value in dense.named_parameters()}
    save_file(named, tmp_path / "2_Dense" / "model.safetensors")
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [
        BARE[tiny.family]
    ]
    loaded = open_model(tmp_path, dtype="bfloat16", device="cpu")
    found = read_footprint(tmp_path)
    assert not found.generates
    plan = plan_memory(found, demand("bfloat16"), Room(4 * GIB, "test"))
    assert plan.weight_bytes == held_bytes(loaded.module, *loaded.head._dense)
    runner = VectorRunner(loaded, num_blocks=plan.kv.blocks, block_size=BLOCK)
    assert plan.kv_bytes == caches(runner)


def test_a_tied_head_that_is_stored_all_the_same_is_held_once(tmp_path):
    """As older checkpoints have it."""
    source = model_dir(by_name("qwen2"))
    weights = {}
    for file in source.glob("*.safetensors"):
        weights |= load_file(file)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(source / "config.json", tmp_path)
    loaded = open_model(tmp_path, dtype="float32", device="cpu")
    plan = plan_memory(read_footprint(tmp_path), demand("float32"), Room(4 * GIB, "test"))
    assert plan.weight_bytes == held_bytes(loaded.module)


def test_four_bit_numbers_are_counted_as_they_are_held():
    """Two to a byte, and their scales are gone once they are dequantised."""
    assert Stored("experts.gate_up_proj_blocks", (4, 6, 2, 16)).numbers == 4 * 6 * 64
    assert Stored("experts.gate_up_proj_scales", (4, 6, 2)).numbers == 0


@each_dtype
def test_what_a_cpu_packs_is_known_without_torch(dtype):
    """By its flags, as torch says of this one."""
    assert packs(dtype, cpuinfo()) == packing(dtype)
