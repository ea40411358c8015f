"""Weights of a lowered graph in fewer bytes: bfloat16, int8 by row, or int4 by groups of a row.

The plugin reads all of them as they are and multiplies in its own precision. Small constants
(norms, biases, frequencies) stay float32. How many bytes that makes, `held.py` tells.
"""

from collections.abc import Callable

import numpy as np
import torch
from openvino import Input, Model, Node, Output, Shape, Tensor, Type, opset13
from openvino.op import Constant

from engines.openvino.held import SMALLEST
from engines.openvino.levels import Weight, by_group, by_row, packed, takes_groups


def to_bfloat16(graph: Model) -> None:
    """Round all weights to bfloat16."""
    for constant in _weights(graph):
        _replace(constant, constant.output(0).get_target_inputs(), _bfloat16)


def to_int8(graph: Model) -> None:
    """Quantise linear layers; what is looked up (embeddings, experts) is rounded to bfloat16."""
    _quantise(graph, lambda _products, _weight: _int8)


def to_int4(graph: Model) -> None:
    """The same in four bits; the head, and what has no whole groups or few outputs, in eight."""
    head = head_of(graph).get_name()

    def chosen(products: list[Input], weight: Weight) -> Callable[[Weight], Output]:
        is_head = any(product.get_node().get_name() == head for product in products)
        return _int4 if takes_groups(*weight.shape) and not is_head else _int8

    _quantise(graph, chosen)


def head_of(graph: Model) -> Node:
    """The product that makes logits; what comes behind it only shapes and scales them."""
    node = graph.output("logits").get_node()
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    return node


def _quantise(
    graph: Model, chosen: Callable[[list[Input], Weight], Callable[[Weight], Output]]
) -> None:
    for constant in _weights(graph):
        readers = list(constant.output(0).get_target_inputs())
        products = [reader for reader in readers if _is_product(reader)]
        others = [reader for reader in readers if not _is_product(reader)]
        if products:
            _replace(constant, products, chosen(products, constant.data))
        if others:
            _replace(constant, others, _bfloat16)


def _weights(graph: Model) -> list[Constant]:
    return [
        node
        for node in graph.get_ops()
        if isinstance(node, Constant)
        and node.get_element_type() == Type.f32
        and len(node.shape) > 1
        and node.data.size >= SMALLEST
    ]


def _replace(constant: Constant, readers: list[Input], made: Callable[[Weight], Output]) -> None:
    smaller = made(constant.data)
    for reader in readers:
        reader.replace_source_output(smaller)


def _is_product(reader: Input) -> bool:
    """Whether it is the matrix [outputs, inputs] of a linear layer."""
    node: Node = reader.get_node()
    if node.get_type_name() != "MatMul" or reader.get_index() != 1:
        return False
    return len(reader.get_shape()) == 2 and bool(node.get_attributes()["transpose_b"])


def _bfloat16(weight: Weight) -> Output:
    bits = torch.from_numpy(np.array(weight)).to(torch.bfloat16).view(torch.uint16).numpy()
    stored = Constant(Tensor(bits, Shape(weight.shape), Type.bf16), shared_memory=False)
    return opset13.convert(stored, "f32").output(0)


def _int8(weight: Weight) -> Output:
    rows = by_row(weight)
    return _scaled(opset13.constant(rows.levels), rows.scales)


def _int4(weight: Weight) -> Output:
    """Three dimensions, and then two: what the plugin reads as groups of a matrix."""
    groups = by_group(weight)
    tensor = Tensor(packed(groups.levels), Shape(groups.levels.shape), Type.i4)
    numbers = _scaled(Constant(tensor, shared_memory=False), groups.scales)
    shape = opset13.constant(np.array(weight.shape, np.int64))
    return opset13.reshape(numbers, shape, special_zero=False).output(0)


def _scaled(levels: Constant, scales: Weight) -> Output:
    return opset13.multiply(opset13.convert(levels, "f32"), opset13.constant(scales)).output(0)
