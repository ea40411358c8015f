"""Attention on CUDA as transformers' modelling code calls it, for layers that are not fused."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from engines.torch.attention import Rule
from engines.torch.cuda.port import Kernels, Layer, Rows
from engines.torch.kv import KvBlocks

NAME = "penstock_cuda"


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward pass hands to every attention layer, as the argument `paged`."""

    rows: Rows
    kv: KvBlocks
    kernels: Kernels

    def layer(self, index: int) -> Layer:
        """What one layer needs of it."""
        return Layer(self.rows, self.kv, index)


def install() -> None:
    """Make the name known to transformers: as one without masks, whose making asks the device."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, attention)


def attention(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,  # noqa: ARG001
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    paged: Step,
    **_: Any,
) -> tuple[Tensor, None]:
    """As `engines.torch.attention.paged_attention`, by kernels."""
    layer: int = module.layer_idx  # type: ignore[assignment] # set by every attention class
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = Rule(scale, sliding_window, softcap, s_aux)
    step = paged.layer(layer)
    step.write(key[0].transpose(0, 1), value[0].transpose(0, 1))
    return paged.kernels.attend(query[0].transpose(0, 1), step, rule)[None], None
