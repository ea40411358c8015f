"""A transformers model to an OpenVINO graph: exported once, with paged attention of our blocks.

torch.export traces transformers' own modelling code. Two functions are exchanged for operations of
ours while it does, so that the plugin gets what it has kernels for:

    attention   by its name in transformers' table; becomes the plugin's paged attention
    rotary      where a family's function is the common one; written out so that the plugin fuses it

The graph computes in float32; in which precision it runs is said when it is compiled.
"""

import contextlib
import importlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from openvino import Model, Output, PartialShape, Type, opset13
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch import ConversionExtension
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

from engines.openvino.paged_op import Attention, inputs_of, paged_attention
from engines.torch.families import ModelFacts
from engines.torch.loading import dequantised, load_weights

NAME = "penstock_openvino"

Caches = tuple[tuple[Tensor, Tensor], ...]


@torch.library.custom_op("penstock::paged", mutates_args=())
def _paged(  # noqa: PLR0913, PLR0917 - what the plugin's operation takes
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    past_lens: Tensor,
    row_starts: Tensor,
    blocks: Tensor,
    block_starts: Tensor,
    longest: Tensor,
    scale: float,
    window: int,
) -> Tensor:
    raise NotImplementedError("it is there to be exported")


@_paged.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(query)


@torch.library.custom_op("penstock::rotary", mutates_args=())
def _rotary(rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    raise NotImplementedError("it is there to be exported")


@_rotary.register_fake
def _(rows: Tensor, _cos: Tensor, _sin: Tensor) -> Tensor:
    return torch.empty_like(rows)


def _install() -> None:
    """Make the attention known to transformers by its name; masks are the plugin's."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _attend(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,  # noqa: ARG001
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    paged: tuple[Caches, tuple[Tensor, ...]],
    **_: Any,
) -> tuple[Tensor, None]:
    """Query is [1, heads, rows, d], key and value [1, kv_heads, rows, d]; [1, rows, heads, d]."""
    heads, rows, size = query.shape[1:]
    caches, batch = paged
    layer: int = module.layer_idx  # type: ignore[assignment] # set by every attention class
    flat = [part.transpose(1, 2).reshape(rows, -1) for part in (query, key, value)]
    out = _paged(
        *flat,
        torch.zeros(0) if s_aux is None else s_aux.reshape(1, -1, 1, 1),
        *caches[layer],
        *batch,
        float(size**-0.5 if scaling is None else scaling),
        int(sliding_window or 0),
    )
    return out.reshape(1, rows, heads, size), None


def _apply_rotary(
    query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1, **_: Any
) -> tuple[Tensor, Tensor]:
    """What transformers' function of the same arguments computes, in one operation each."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _rotary(query, cos, sin), _rotary(key, cos, sin)


@contextlib.contextmanager
def _exchanged(module: nn.Module) -> Iterator[None]:
    """The modelling code of a model, fit to be exported; as it was again afterwards."""
    code: Any = importlib.import_module(type(module).__module__)
    theirs = getattr(code, "apply_rotary_pos_emb", None)
    half = getattr(code, "rotate_half", None)
    common = modeling_llama.apply_rotary_pos_emb, modeling_llama.rotate_half
    if [_statements(theirs), _statements(half)] == [_statements(each) for each in common]:
        code.apply_rotary_pos_emb = _apply_rotary
    try:
        yield
    finally:
        if theirs is not None:
            code.apply_rotary_pos_emb = theirs


def _statements(function: Any) -> bytes | None:
    """The compiled body of a function, whoever wraps it."""
    return None if function is None else inspect.unwrap(function).__code__.co_code


def _still(module: nn.Module) -> None:
    """Frequencies that would change with the longest row of a batch stay as they are.

    The context of such models ends where they would change (families.py).
    """
    for each in module.modules():
        if hasattr(each, "inv_freq") or hasattr(each, "rope_type"):
            plain = inspect.unwrap(type(each).forward)
            each.forward = MethodType(plain, each)


class _Step(nn.Module):
    """A decoder as a function of flat arrays: logits of some rows, and hidden states of all."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        logits_rows: Tensor,
        batch: tuple[Tensor, ...],
        caches: Caches,
    ) -> tuple[Tensor, Tensor]:
        hidden: list[Tensor] = []
        base: nn.Module = self.module.base_model  # type: ignore[assignment]
        hook = base.register_forward_hook(
            lambda _module, _inputs, out: hidden.append(_flat(out.last_hidden_state))
        )
        logits = self.module(
            input_ids=tokens[None],
            position_ids=positions[None],
            use_cache=False,
            paged=(caches, batch),
            logits_to_keep=logits_rows,
        ).logits
        hook.remove()
        return _flat(logits), hidden[0]


def _flat(rows: Tensor) -> Tensor:
    """Without the dimension of batches, by a view: an index would copy all logits of a step."""
    return rows.flatten(0, 1)


def lower(path: Path, facts: ModelFacts) -> Model:
    """The graph of the model in a directory, in float32. Raises ModelRejected."""
    _install()
    module = load_weights(
        path,
        facts.architecture,
        torch.float32,
        unused=(),
        attn_implementation=NAME,
        experts_implementation="batched_mm",
        **dequantised(facts),
    )
    module = module.eval().requires_grad_(requires_grad=False)
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about its own pytrees
        return _graph(module, facts.layers)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The front end logs, with tracebacks, every decomposition that this torch has not."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _graph(module: nn.Module, layers: int) -> Model:
    """It shares the module's weights, and holds them."""
    _still(module)
    with _exchanged(module), torch.no_grad():
        exported = torch.export.export(
            _Step(module), _example(layers), dynamic_shapes=_shapes(layers), strict=False
        )
    front = FrontEndManager().load_by_framework("pytorch")
    for name, convert in (("paged", _convert_paged), ("rotary", _convert_rotary)):
        front.add_extension(ConversionExtension(f"penstock.{name}.default", convert))
    decoder = TorchFXPythonDecoder.from_exported_program(exported)  # the front end only borrows it
    graph = front.convert(front.load(decoder))
    _name(graph, layers)
    return graph


def _example(layers: int) -> tuple[Any, ...]:
    """Arguments of any legal size."""
    flat = [torch.zeros(n, dtype=torch.int32) for n in (2, 3, 4, 3)]
    caches = [(torch.zeros(4, 1, 1, 1), torch.zeros(4, 1, 1, 1)) for _ in range(layers)]
    batch = (*flat, torch.tensor(7, dtype=torch.int32))
    return torch.arange(7), torch.arange(7), torch.tensor([3, 6]), batch, tuple(caches)


def _shapes(layers: int) -> tuple[Any, ...]:
    """Which sizes of those arguments may change. A step has two rows and two samples at least."""
    auto = torch.export.Dim.AUTO
    rows = {0: torch.export.Dim("rows", min=2, max=1 << 20)}
    samples = {0: torch.export.Dim("samples", min=2, max=1 << 20)}
    flat = {0: auto}
    batch: tuple[Any, ...] = (flat, flat, flat, flat, {})
    return rows, rows, samples, batch, (({0: auto}, {0: auto}),) * layers


def _name(graph: Model, layers: int) -> None:
    names = inputs_of(layers)
    if len(graph.inputs) != len(names):
        raise RuntimeError(f"the graph has {len(graph.inputs)} inputs; {len(names)} are known")
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
        if "cache" in name:  # the plugin resolves precision and layout
            port.get_node().set_partial_shape(PartialShape([-1] * 4))
            port.get_node().set_element_type(Type.dynamic)
    for port, name in zip(graph.outputs, ("logits", "hidden"), strict=True):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()


def _convert_paged(node: Any) -> list[Output]:
    """The graph of `_paged`; its inputs by their place."""
    query, key, value, sinks, *rest = (node.get_input(place) for place in range(11))
    key_cache, value_cache, past_lens, row_starts, blocks, block_starts, longest = rest
    scale, window = (
        np.asarray(node.get_values_from_const_input(place)).item() for place in (11, 12)
    )
    shape = sinks.get_partial_shape()
    absent = shape.rank.get_length() == 1
    layer = Attention(
        key_cache=key_cache,
        value_cache=value_cache,
        past_lens=past_lens,
        row_starts=row_starts,
        blocks=blocks,
        block_starts=block_starts,
        longest=longest,
        scale=float(scale),
        window=int(window),
        sinks=None if absent else sinks,
    )
    return [paged_attention(query, key, value, layer)]


def _convert_rotary(node: Any) -> list[Output]:
    """Rows times cos, plus their turned halves times sin, as the plugin's fusion looks for it."""
    rows, cos, sin = (node.get_input(place) for place in range(3))
    half = rows.get_partial_shape()[3].get_length() // 2
    at = [opset13.constant(np.array([n], np.int64)) for n in (0, half, 2**31 - 1, 1, 3)]
    first = opset13.slice(rows, at[0], at[1], at[3], at[4])
    second = opset13.slice(rows, at[1], at[2], at[3], at[4])
    minus = opset13.constant(np.full((1, 1, 1, 1), -1, np.float32))
    turned = opset13.concat([opset13.multiply(second, minus), first], -1)
    straight = opset13.multiply(rows, cos)
    return [opset13.add(straight, opset13.multiply(turned, sin)).output(0)]
