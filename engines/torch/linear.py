"""Products whose rows do not depend on how many rows there are, on the CPU in float32.

torch sends float32 products on x86 to MKL, which changes kernels with the number of rows (at 1 and
at 15 or so), and with them the rounding: a token's logits would depend on its batch-mates. oneDNN's
float32 kernels give every row the same bits for any count from two up (benchmarks/exactness.py),
at about the same speed, so every `nn.Linear` is pointed at them. Mixtures of experts need two more
steps, since an expert's row count is up to the batch. Other devices and types keep their kernels.
"""

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

EXPERTS_NAME = "penstock_rowwise"

_ROUTER_TILE = 16  # rows; a constant shape is a constant kernel


def can_be_rowwise(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether it helps, and oneDNN is built in."""
    helps = device.type == "cpu" and dtype == torch.float32
    return helps and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def rowwise(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`rows @ weight.T + bias` by oneDNN; rows [..., in], weight [out, in]."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - no public spelling
        rows, weight, bias, "none", [], ""
    )
    return out


class RowwiseLinear(nn.Module):
    """An `nn.Linear` computed by oneDNN; shares the weights of the one it replaces."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        return rowwise(rows, self.weight, self.bias)


class TiledRouter(nn.Module):
    """A router of experts run over tiles of constant shape, whatever the batch."""

    def __init__(self, router: nn.Module) -> None:
        super().__init__()
        self.router = router

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Rows [rows, hidden]; the router's outputs, each [rows, ...]."""
        rows = rows.reshape(-1, rows.shape[-1])
        padded = nn.functional.pad(rows, (0, 0, 0, -len(rows) % _ROUTER_TILE))
        outputs = zip(
            *(self.router(tile) for tile in torch.split(padded, _ROUTER_TILE)), strict=True
        )
        return tuple(torch.cat(parts)[: len(rows)] for parts in outputs)


def make_rowwise(module: nn.Module) -> None:
    """Replace every linear layer and every router of experts below `module`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:  # a subclass computes something else
                setattr(parent, name, RowwiseLinear(child))
            elif type(child).__name__.endswith("TopKRouter"):
                setattr(parent, name, TiledRouter(child))


def install_experts() -> None:
    """Make `experts` known to transformers by its name."""
    ALL_EXPERTS_FUNCTIONS.register(EXPERTS_NAME, experts)


def experts(module: nn.Module, rows: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Each row through its experts, summed in the order of its own choice.

    Rows are [rows, hidden], chosen and weights [rows, k]; like rows.
    """
    parts = rows.new_empty(*chosen.shape, rows.shape[-1])
    for expert in torch.unique(chosen).tolist():
        row, place = torch.where(chosen == expert)
        parts[row, place] = _expert(module, expert, rows[row])
    parts *= weights[..., None]
    total = parts[:, 0]
    for other in range(1, chosen.shape[1]):
        total = total + parts[:, other]
    return total


def _expert(module: nn.Module, expert: int, rows: Tensor) -> Tensor:
    """One expert over the rows that chose it; a lone row is doubled to get the same kernel."""
    count = len(rows)
    rows = rows.expand(2, -1) if count == 1 else rows
    gate_up = _product(module, "gate_up_proj", expert, rows)
    gated: Tensor = module._apply_gate(gate_up)  # type: ignore[operator]  # noqa: SLF001
    return _product(module, "down_proj", expert, gated)[:count]


def _product(module: nn.Module, name: str, expert: int, rows: Tensor) -> Tensor:
    weight: Tensor = getattr(module, name)[expert]
    bias: Tensor | None = getattr(module, f"{name}_bias")[expert] if module.has_bias else None
    return rowwise(rows, weight.t() if module.is_transposed else weight, bias)
