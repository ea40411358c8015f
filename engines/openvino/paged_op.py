"""The one place that knows OpenVINO's paged-attention operation, which promises no compatibility.

It is private: `openvino.op._PagedAttentionExtension`, with 28 inputs in 2026.4. Its inputs have
changed twice a year, so the version is checked here and pinned in pyproject.toml, and the equality
suites (tests/conformance/test_families.py) are what allows another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from openvino import Model, Output, opset13
from openvino.op import _PagedAttentionExtension

from engines.errors import ModelRejected
from engines.openvino.version import why_not_here


@dataclass(frozen=True, slots=True)
class Attention:
    """What one layer's attention needs beyond its rows; all but the outputs are constants."""

    key_cache: Output
    value_cache: Output
    past_lens: Output  # int32 [segments]
    row_starts: Output  # int32 [segments + 1]
    blocks: Output  # int32 [entries], the tables of all segments
    block_starts: Output  # int32 [segments + 1]
    longest: Output  # int32 [], the longest past and rows together
    scale: float
    window: int  # 0: all that came before
    sinks: Output | None = None  # float32 [1, heads, 1, 1]


def check_version() -> None:
    """Raise ModelRejected for an OpenVINO whose operation was never looked at."""
    why = why_not_here()
    if why is not None:
        raise ModelRejected(why)


def paged_attention(query: Output, key: Output, value: Output, layer: Attention) -> Output:
    """Write keys and values of all rows, then attend; the result is as the query.

    Rows are [rows, heads * head_dim]. The caches are [blocks, kv_heads, 32, head_dim] once the
    plugin has resolved them.
    """
    nothing = _empty(np.int32)
    operation = _PagedAttentionExtension([
        query, key, value, layer.key_cache, layer.value_cache,
        layer.past_lens, layer.row_starts, layer.blocks, layer.block_starts,
        _scalar(np.float32(layer.scale)),
        _scalar(np.int32(layer.window)),
        _empty(np.float32),  # ALiBi slopes
        layer.longest,
        nothing,  # score aggregation window
        nothing, _empty(np.int32, 0, 0), _empty(np.float32, 0, 0),  # rotation of evicted blocks
        _empty(np.float32), _scalar(np.int32(0)), _scalar(np.int32(0)),  # sparse attention
        _empty(np.float32) if layer.sinks is None else layer.sinks,
        _scalar(np.int32(0)), nothing, nothing, nothing,  # adaptive eviction
        nothing,  # token types
        _empty(np.uint8), nothing,  # query-query bias
    ])  # fmt: skip
    return operation.output(0)


def tell_layout(graph: Model, kv_heads: int, head_dim: int, precision: str) -> None:
    """Say what the plugin lays out the caches by: a stored graph does not hold it.

    `precision` is that of keys and values: f32 or bf16.
    """
    facts = {"num_k_heads": kv_heads, "num_v_heads": kv_heads}
    facts |= {"k_head_size": head_dim, "v_head_size": head_dim}
    for node in graph.get_ops():
        if node.get_type_name() == "PagedAttentionExtension":
            told = node.get_rt_info()
            for name, number in facts.items():
                told[name] = number
    graph.set_rt_info(precision, ["runtime_options", "KV_CACHE_PRECISION"])


def _empty(kind: type[np.generic], *shape: int) -> Output:
    return opset13.constant(np.zeros(shape or (0,), kind)).output(0)


def _scalar(value: np.generic) -> Output:
    return opset13.constant(value).output(0)


def inputs_of(layers: int) -> Sequence[str]:
    """The names of a lowered model's inputs, in the order of their export."""
    caches = [f"{kind}_cache.{layer}" for layer in range(layers) for kind in ("key", "value")]
    return (
        *("tokens", "positions", "logits_rows"),
        *("past_lens", "row_starts", "blocks", "block_starts", "longest"),
        *caches,
    )
