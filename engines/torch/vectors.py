"""Rows of hidden states to vectors: pooling lane by lane over any chunks, then the recipe's rest.

All of it is float32, whatever the model computes in. A pool takes a lane's rows as they come, so a
prompt may arrive in chunks and in any batch.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engines.errors import ModelRejected
from engines.step import LaneStart, StepPlan
from engines.torch.recipe import NOT_FINITE, Dense, Pooling, Recipe


class Head(Protocol):
    """From pooled rows float32 [texts, hidden] to vectors float32 [texts, size]."""

    pooling: Pooling

    def __call__(self, pooled: Tensor) -> Tensor: ...


class VectorHead:
    """What a recipe does to pooled rows."""

    def __init__(self, recipe: Recipe, dense: Sequence[nn.Module] = ()) -> None:
        self.pooling = recipe.pooling
        self._dense = dense
        self._normalise = recipe.normalise

    def __call__(self, pooled: Tensor) -> Tensor:
        for layer in self._dense:
            pooled = layer(pooled)
        return nn.functional.normalize(pooled, dim=-1) if self._normalise else pooled


def load_head(recipe: Recipe, hidden: int, device: torch.device) -> VectorHead:
    """The head with its weights. Raises ModelRejected naming a folder that does not fit."""
    layers, inputs = [], hidden
    for dense in recipe.dense:
        if dense.inputs != inputs:
            raise ModelRejected(f"{dense.folder} takes {dense.inputs} numbers, but gets {inputs}")
        layers.append(_layer(dense).to(device).eval().requires_grad_(requires_grad=False))
        inputs = dense.outputs
    return VectorHead(recipe, layers)


def _layer(dense: Dense) -> nn.Module:
    linear = nn.Linear(dense.inputs, dense.outputs, bias=dense.bias)
    try:
        weights = load_file(dense.folder / "model.safetensors")
        linear.load_state_dict({key.removeprefix("linear."): w for key, w in weights.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelRejected(f"{dense.folder} could not be loaded: {error}") from error
    activation: nn.Module = getattr(nn, dense.activation)()
    return nn.Sequential(linear, activation)


@dataclass(slots=True)
class _Pool:
    """The rows of one lane so far, folded."""

    rows: int = 0
    state: Tensor | None = None  # float32 [hidden]

    def take(self, rows: Tensor, pooling: Pooling) -> None:
        match pooling:
            case Pooling.MEAN:
                total = rows.float().sum(dim=0)
                self.state = total if self.state is None else self.state + total
            case Pooling.CLS if self.state is None:
                self.state = rows[0].float()
            case Pooling.LAST:
                self.state = rows[-1].float()
        self.rows += len(rows)


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors that a step completed, still on the device, and whose they are."""

    samples: Sequence[int] = ()
    values: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    def read(self) -> tuple[Mapping[int, Sequence[float]], Mapping[int, str]]:
        """Wait for the device: vectors by sample, and why others have none."""
        if not self.samples:
            return {}, {}
        rows = self.values.cpu().numpy()
        sound = torch.isfinite(self.values).all(dim=-1).tolist()
        found = list(zip(self.samples, rows, sound, strict=True))
        vectors = {sample: array("f", row.tobytes()) for sample, row, fine in found if fine}
        return vectors, {sample: NOT_FINITE for sample, _, fine in found if not fine}


class Pooler:
    """Holds the pool of every lane that wants a vector."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._pools: dict[int, _Pool] = {}

    def start(self, start: LaneStart) -> None:
        """A sequence takes a lane: whatever was pooled there is forgotten."""
        self._pools.pop(start.lane, None)
        if start.pooled:
            self._pools[start.lane] = _Pool()

    @property
    def idle(self) -> bool:
        """Whether nobody wants a vector."""
        return not self._pools

    def feed(self, plan: StepPlan, hidden: Tensor) -> Vectors:
        """Take in a step's rows [rows, hidden]; the vectors of the lanes that it samples."""
        if self.idle:
            return Vectors()
        bounds = plan.row_starts.tolist()
        for segment, lane in enumerate(plan.segment_lanes.tolist()):
            if lane in self._pools:
                rows = hidden[bounds[segment] : bounds[segment + 1]]
                self._pools[lane].take(rows, self._head.pooling)
        lanes = plan.sample_lanes.tolist()
        samples = [sample for sample, lane in enumerate(lanes) if lane in self._pools]
        if not samples:
            return Vectors()
        pooled = [self._pools.pop(lanes[sample]) for sample in samples]
        return Vectors(samples, self._head(torch.stack([self._folded(pool) for pool in pooled])))

    def _folded(self, pool: _Pool) -> Tensor:
        if pool.state is None:
            raise RuntimeError("a lane is sampled before any of its rows were computed")
        return pool.state / pool.rows if self._head.pooling is Pooling.MEAN else pool.state
