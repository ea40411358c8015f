"""Bytes of quantised weights, by the headers of a checkpoint: what `weights.py` makes of them.

    linear layers    int8: a byte, and four for each row
                     int4: half a byte, and four for each 64; or as int8 (levels.py says which)
    the head         as int8 in both; where it is the embedding as well, beside that
    embeddings       two bytes, and so the weights of experts, which are looked up
    what is small    four bytes: norms, biases

Told without OpenVINO and torch. That a lowered graph's file is as large, but for shapes and numbers
of its operations, is shown by tests/conformance/test_lowered_footprints.py.
"""

from math import prod
from typing import TYPE_CHECKING

from engines.openvino.levels import GROUP, takes_groups

if TYPE_CHECKING:
    from engines.torch.footprint import Footprint, Stored

SMALLEST = 4096  # numbers of a tensor that is made smaller; below that nothing is gained

_SCALE_BYTES = 4


def held_bytes(footprint: "Footprint", dtype: str) -> int:
    """Bytes of the weights of a decoder in int8 or int4."""
    total = sum(_held(tensor, dtype) for tensor in footprint.stored)
    if footprint.shared:
        rows = footprint.vocab_size
        total += _by_row(rows, footprint.shared // rows)
    return total


def _held(tensor: "Stored", dtype: str) -> int:
    numbers = tensor.numbers
    if len(tensor.shape) == 1 or numbers < SMALLEST:
        return 4 * numbers
    if tensor.is_embedding or tensor.is_of_experts:
        return 2 * numbers
    outputs, inputs = tensor.shape[0], prod(tensor.shape[1:])
    if dtype == "int4" and not tensor.is_head and takes_groups(outputs, inputs):
        return numbers // 2 + numbers // GROUP * _SCALE_BYTES
    return _by_row(outputs, inputs)


def _by_row(outputs: int, inputs: int) -> int:
    return outputs * (inputs + _SCALE_BYTES)
