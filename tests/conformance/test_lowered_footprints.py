"""Quantised weights are planned at the bytes that their lowered graph takes on the disk."""

from functools import cache

import pytest

from engines.bundled import penstock_tiny
from engines.openvino.version import QUANTISED
from engines.torch.footprint import read_footprint
from gateway.plan_command import computes_bfloat16, cpuinfo, plan_of
from gateway.settings import Settings
from tests.support.openvino import INSTALLED, needs_openvino, open_openvino
from tests.support.tiny_models import Tiny, by_name, model_dir

if INSTALLED:
    import openvino

    from engines.openvino import weights
    from engines.openvino.held import held_bytes
    from engines.openvino.loading import computes_in

pytestmark = needs_openvino

BUNDLED = Tiny("penstock-tiny", "llama")
# Plain, tied, fused projections, experts of two kinds, biases, scaled logits, norms of heads.
MODELS = (
    BUNDLED,
    *map(
        by_name,
        (
            "llama",
            "qwen2",
            "phi3",
            "mixtral",
            "gpt-oss",
            "starcoder2",
            "cohere",
            "granite",
            "qwen3",
        ),
    ),
)
REST = 1000  # bytes: of shapes, of frequencies of rotation, of operations' numbers


def directory(tiny):
    return penstock_tiny() if tiny is BUNDLED else model_dir(tiny)


@cache
def lowered(tiny):
    """The float32 graph of a model, which is lowered once for all of these tests."""
    return open_openvino(directory(tiny)).weights.with_suffix(".xml")


def stored_bytes(tiny, dtype, folder):
    """Of all constants of a quantised graph, as it is kept."""
    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin, whose operation it reads
    graph = core.read_model(lowered(tiny))
    getattr(weights, f"to_{dtype}")(graph)
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    return (folder / "model.bin").stat().st_size


@pytest.mark.parametrize("dtype", QUANTISED)
@pytest.mark.parametrize("tiny", MODELS, ids=lambda tiny: tiny.name)
def test_quantised_weights_are_planned_as_they_are_stored(tiny, dtype, tmp_path):
    """But for some hundreds of bytes that are no weights."""
    planned = held_bytes(read_footprint(directory(tiny)), dtype)
    assert 0 <= stored_bytes(tiny, dtype, tmp_path) - planned < REST


@pytest.mark.parametrize(("dtype", "size"), [("int8", 9_562_368), ("int4", 6_700_800)])
def test_a_plan_counts_the_bits_of_each_data_type(dtype, size):
    """The bundled model by its shapes; keys and values are in bfloat16 where the CPU has it."""
    planned = plan_of(Settings(dtype=dtype, memory=4 << 30, device="cpu"))
    assert planned.plan.weight_bytes == size
    assert planned.plan.demand.held_in == dtype
    assert planned.plan.demand.dtype == computes_in(dtype)


def test_what_computes_in_bfloat16_is_known_without_openvino():
    """By the CPU's flags, as the plugin says of this one."""
    assert computes_bfloat16(cpuinfo()) == (computes_in("int8") == "bfloat16")
