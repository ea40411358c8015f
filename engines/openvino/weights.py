"""Weights of a lowered graph in fewer bytes: bfloat16, or int8 by row with the row's scale.

The plugin reads both as they are and multiplies in its own precision. Small constants (norms,
biases, frequencies) stay float32.
"""

import numpy as np
import numpy.typing as npt
import torch
from openvino import Input, Model, Node, Output, Shape, Tensor, Type, opset13
from openvino.op import Constant

_SMALLEST = 4096  # elements; below that nothing is gained

Weight = npt.NDArray[np.float32]


def to_bfloat16(graph: Model) -> None:
    """Round all weights to bfloat16."""
    for constant in _weights(graph):
        rounded = _bfloat16(constant.data)
        for reader in constant.output(0).get_target_inputs():
            reader.replace_source_output(rounded)


def to_int8(graph: Model) -> None:
    """Quantise linear layers; what is looked up (embeddings, experts) is rounded to bfloat16."""
    for constant in _weights(graph):
        readers = constant.output(0).get_target_inputs()
        products = [reader for reader in readers if _is_product(reader)]
        if products:
            quantised = _int8(constant.data)
            for reader in products:
                reader.replace_source_output(quantised)
        others = [reader for reader in readers if not _is_product(reader)]
        if others:
            rounded = _bfloat16(constant.data)
            for reader in others:
                reader.replace_source_output(rounded)


def _weights(graph: Model) -> list[Constant]:
    return [
        node
        for node in graph.get_ops()
        if isinstance(node, Constant)
        and node.get_element_type() == Type.f32
        and len(node.shape) > 1
        and node.data.size >= _SMALLEST
    ]


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
    """Symmetric: each row times the scale that puts its largest weight at 127."""
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    levels = np.rint(weight / scale).clip(-127, 127).astype(np.int8)
    scales = opset13.constant(scale.astype(np.float32))
    return opset13.multiply(opset13.convert(opset13.constant(levels), "f32"), scales).output(0)
