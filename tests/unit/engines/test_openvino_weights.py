"""Quantised weights in a lowered graph: what is stored, what the plugin computes of it, and how."""

import numpy as np
import pytest

from engines.bundled import penstock_tiny
from engines.openvino.levels import by_group, by_row, packed
from tests.support.openvino import INSTALLED, needs_openvino, open_openvino, openvino_runner
from tests.support.plans import Driver, Run
from tests.support.texts import prose, windows

if INSTALLED:
    from openvino import Core, Model, PartialShape, Shape, Type, opset13
    from openvino.op import Constant

    from engines.openvino.weights import head_of, to_int4, to_int8

pytestmark = needs_openvino

VOCAB, WIDTH, INNER = 300, 128, 256
BLOCK = 32


def weights(seed=0):
    """Of a small model: an embedding that is the head as well, and three layers between."""
    rng = np.random.default_rng(seed)
    shapes = {"tied": (VOCAB, WIDTH), "up": (INNER, WIDTH), "few": (64, INNER), "odd": (260, 65)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def graph(given):
    """Rows looked up, widened, narrowed, and scored; beside it a layer of odd width."""
    tokens = opset13.parameter(PartialShape([-1]), np.int64, name="tokens")
    odd = opset13.parameter(PartialShape([-1, 65]), np.float32, name="odd")
    held = {name: opset13.constant(weight) for name, weight in given.items()}
    rows = opset13.gather(held["tied"], tokens, opset13.constant(np.int64(0)))
    wide = opset13.matmul(rows, held["up"], transpose_a=False, transpose_b=True)
    few = opset13.matmul(wide, held["few"], transpose_a=False, transpose_b=True)
    back = opset13.concat([few, few], 1)
    logits = opset13.matmul(back, held["tied"], transpose_a=False, transpose_b=True)
    scaled = opset13.multiply(logits, opset13.constant(np.float32(0.5)))
    beside = opset13.matmul(odd, held["odd"], transpose_a=False, transpose_b=True)
    model = Model([scaled, beside], [tokens, odd])
    model.outputs[0].get_tensor().set_names({"logits"})
    return model


def computed(model, tokens, odd):
    config = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    found = Core().compile_model(model, "CPU", config)([tokens, odd])
    return [np.array(found[place]) for place in range(2)]


def rounded(weight):
    """To bfloat16, ties to even."""
    bits = weight.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def test_the_plugin_computes_with_the_numbers_that_levels_stand_for():
    """Groups, rows and what is looked up, each in its own way; packed as the plugin reads it."""
    given = weights()
    rng = np.random.default_rng(1)
    tokens, odd = np.array([3, 299, 0, 7]), rng.normal(size=(4, 65)).astype(np.float32)
    for quantise, up in ((to_int8, by_row), (to_int4, by_group)):
        model = graph(given)
        quantise(model)
        wide = rounded(given["tied"])[tokens] @ up(given["up"]).numbers.T
        few = wide @ by_row(given["few"]).numbers.T
        logits = np.concatenate([few, few], 1) @ by_row(given["tied"]).numbers.T / 2
        expected = logits, odd @ by_row(given["odd"]).numbers.T
        for found, truth in zip(computed(model, tokens, odd), expected, strict=True):
            assert np.abs(found - truth).max() < 1e-5 * np.abs(truth).max()


def stored(model):
    """Shapes of constants by the type they are stored in, those of scales left out."""
    kinds = {Type.bf16: "bf16", Type.i8: "i8", Type.i4: "i4"}
    return sorted(
        (kinds[node.get_element_type()], tuple(node.get_output_shape(0)))
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() in kinds
    )


def test_only_large_linear_layers_are_of_four_bits():
    """The head, few outputs and uneven rows are of eight; embeddings are bfloat16."""
    model = graph(weights())
    to_int4(model)
    assert stored(model) == [
        ("bf16", (VOCAB, WIDTH)),
        ("i4", (INNER, WIDTH // 64, 64)),
        ("i8", (64, INNER)),
        ("i8", (260, 65)),
        ("i8", (VOCAB, WIDTH)),
    ]


def test_levels_of_four_bits_are_packed_as_openvino_packs_them():
    """Bytes of its own constants of the same numbers."""
    levels = by_group(weights()["up"]).levels
    theirs = Constant(Type.i4, Shape(levels.shape), levels.ravel().tolist())
    assert np.array_equal(theirs.data.view(np.uint8).ravel(), packed(levels))


@pytest.mark.parametrize(("dtype", "kind"), [("int8", "i8"), ("int4", "i4")])
def test_the_plugin_multiplies_quantised_weights_as_they_are(dtype, kind):
    """Products of the bundled model read these bits themselves; nothing unpacks them before."""
    graph = open_openvino(penstock_tiny(), dtype).compiled.get_runtime_model()
    products = [
        node
        for node in graph.get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"
    ]
    kinds = [node.get_input_element_type(1).get_type_name() for node in products]
    assert len(kinds) == 6 * 7 + 1
    assert kinds.count(kind) == {"int8": 6 * 7 + 1, "int4": 6 * 5}[dtype]


def logits_of(dtype, window):
    loaded = open_openvino(penstock_tiny(), dtype)
    runner = openvino_runner(loaded, num_blocks=40, max_lanes=4)
    drive = Driver(runner, num_blocks=40, block_size=BLOCK)
    return runner.logits(drive.plan([Run(drive.start(0, window), len(window))]))[0].copy()


@pytest.mark.parametrize(("dtype", "share"), [("int8", 0.05), ("int4", 0.25)])
def test_logits_stay_near_the_truth(dtype, share):
    """Of the bundled model after text it knows: a share of the logits' spread."""
    window = windows(prose(), count=1, length=64)[0]
    truth, found = (logits_of(each, window) for each in ("float32", dtype))
    assert not np.array_equal(found, truth)
    assert np.abs(found - truth).mean() < share * truth.std()


def test_the_head_is_found_behind_what_scales_the_logits():
    """By the output that it makes."""
    head = head_of(graph(weights()))
    assert tuple(head.input_value(1).get_shape()) == (VOCAB, WIDTH)
