"""The share of one process in a decoder's weights, and the sums that make the whole of it.

    heads   q, k, v: outputs divided, so whole heads    o: inputs divided, summed
    MLP     gate, up: outputs divided                   down: inputs divided, summed

Norms, embeddings and the head are everywhere. Two sums for each layer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from engines.torch.families import ModelFacts
from engines.torch.parallel.layout import HEAD_NORMS, INPUTS, OUTPUTS

Sum = Callable[[Tensor], object]  # in place, over all processes


@dataclass(frozen=True, slots=True)
class Share:
    """One of so many equal parts."""

    rank: int
    ranks: int

    def of(self, weight: Tensor, axis: int) -> nn.Parameter:
        """A copy of its part along an axis, so that the whole can be let go."""
        part = weight.detach().chunk(self.ranks, axis)[self.rank]
        copied = part.clone(memory_format=torch.contiguous_format)
        return nn.Parameter(copied, requires_grad=False)


def divide(module: nn.Module, facts: ModelFacts, share: Share) -> ModelFacts:
    """Leave of a loaded module what is this share's; the facts of what is left.

    Before its layers are packed or moved. Only for what `layout.check_divisible` lets pass.
    """
    for name, layer in _layers(module):
        if name in OUTPUTS:
            layer.weight = share.of(layer.weight, 0)
            layer.bias = None if layer.bias is None else share.of(layer.bias, 0)
            layer.out_features = len(layer.weight)
        elif name in INPUTS:
            layer.weight = share.of(layer.weight, 1)
            layer.bias = layer.bias if share.rank == 0 else None  # added once
            layer.in_features = layer.weight.shape[1]
        elif name in HEAD_NORMS and layer.weight.dim() == 2:
            layer.weight = share.of(layer.weight, 0)
    return replace(facts, kv_heads=facts.kv_heads // share.ranks)


def join(module: nn.Module, total: Sum = dist.all_reduce) -> None:
    """From now on what a divided module computes in parts is summed on the way.

    After its layers are packed, which are then others.
    """

    def summed(_layer: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
        total(out)
        return out

    for name, layer in _layers(module):
        if name in INPUTS:
            layer.register_forward_hook(summed)


def _layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The modules below the decoder's layers, by the last part of their names."""
    for name, layer in module.named_modules():
        if "layers." in name:
            yield name.rpartition(".")[2], layer
