"""Linear layers whose rows do not depend on how many rows there are, on the CPU in float32.

torch sends float32 products on x86 to MKL, which changes kernels with the number of rows (at 1 and
at 15 or so), and with them the rounding: a token's logits would depend on its batch-mates. oneDNN's
float32 kernels give every row the same bits for any count from two up (benchmarks/exactness.py),
at about the same speed, so every `nn.Linear` is pointed at them. Other devices and types keep
theirs.
"""

import torch
from torch import Tensor, nn


class RowwiseLinear(nn.Module):
    """An `nn.Linear` computed by oneDNN; shares the weights of the one it replaces."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - no public spelling
            rows, self.weight, self.bias, "none", [], ""
        )
        return out


def make_rowwise(module: nn.Module, *, device: torch.device, dtype: torch.dtype) -> None:
    """Replace every linear layer below `module`, where that helps and oneDNN is built in."""
    helps = device.type == "cpu" and dtype == torch.float32
    if not helps or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:  # a subclass computes something else
                setattr(parent, name, RowwiseLinear(child))
