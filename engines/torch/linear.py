"""Products on the CPU by oneDNN, whose float32 rows do not depend on how many rows there are.

torch sends float32 products on x86 to MKL, which changes kernels with the number of rows (at 1 and
at 15 or so), and with them the rounding: a token's logits would depend on its batch-mates. oneDNN's
float32 kernels give every row the same bits for any count from two up (benchmarks/exactness.py).
Mixtures of experts need two more steps, since an expert's row count is up to the batch.

Weights are packed once into oneDNN's own layout. On one busy Xeon core, microseconds for 2 / 16 /
64 / 512 rows of a 768 x 3072 layer:

    float32   MKL 338 / 896 / 1993 / 13886    plain 521 / 830 / 1928 / 17335
              packed 384 / 603 / 1672 / 13003
    bfloat16  torch 323 / 351 / 558 / 1822    packed 215 / 222 / 322 / 1649

(bfloat16 gains the speed only: its AMX kernels change with the number of rows.)
"""

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

EXPERTS_NAME = "penstock_rowwise"

_ROUTER_TILE = 16  # rows; a constant shape is a constant kernel


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN is built in and this CPU has its instructions for the type."""
    built_in = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or not built_in:
        return False
    operations = torch.ops.mkldnn
    return dtype == torch.float32 or bool(operations._is_mkldnn_bf16_supported())  # noqa: SLF001


def rowwise(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`rows @ weight.T + bias` by oneDNN; rows [..., in], weight [out, in], maybe packed."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - no public spelling
        rows, weight, bias, "none", [], ""
    )
    return out


class PackedLinear(nn.Module):
    """An `nn.Linear` computed by oneDNN from a packed copy of its weights."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # No parameter: the packed layout is opaque, only the kernel below can read it.
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001
            linear.weight.detach(), None
        )
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        return rowwise(rows, self._packed, self.bias)


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


def pack(module: nn.Module) -> None:
    """Replace every linear layer and every router of experts below `module`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:  # a subclass computes something else
                setattr(parent, name, PackedLinear(child))
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
