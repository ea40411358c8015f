"""Rows of hidden states to vectors in numpy: pooling lane by lane over any chunks, then length.

What a model that generates is pooled by has no dense layers (families.py): those are the torch
runner's.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.step import LaneStart, StepPlan
from engines.torch.recipe import NOT_FINITE, Pooling, Recipe

Rows = npt.NDArray[np.float32]
Vectors = tuple[Mapping[int, Sequence[float]], Mapping[int, str]]

_TINY = np.float32(1e-12)  # what a length of zero counts for


@dataclass(slots=True)
class _Pool:
    """The rows of one lane so far, folded."""

    rows: int = 0
    state: Rows | None = None  # [hidden]

    def take(self, rows: Rows, pooling: Pooling) -> None:
        match pooling:
            case Pooling.MEAN:
                total = rows.sum(axis=0)
                self.state = total if self.state is None else self.state + total
            case Pooling.CLS if self.state is None:
                self.state = rows[0].copy()
            case Pooling.LAST:
                self.state = rows[-1].copy()
        self.rows += len(rows)


class Pooler:
    """Holds the pool of every lane that wants a vector."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
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

    def feed(self, plan: StepPlan, hidden: Rows) -> Vectors:
        """Take in a step's rows [rows, hidden]: by sample the vectors that are done, or why not."""
        bounds = plan.row_starts.tolist()
        for segment, lane in enumerate(plan.segment_lanes.tolist()):
            if lane in self._pools:
                rows = hidden[bounds[segment] : bounds[segment + 1]]
                self._pools[lane].take(rows, self._recipe.pooling)
        vectors: dict[int, Sequence[float]] = {}
        failed: dict[int, str] = {}
        for sample, lane in enumerate(plan.sample_lanes.tolist()):
            if lane in self._pools:
                vector = self._folded(self._pools.pop(lane))
                if np.isfinite(vector).all():
                    vectors[sample] = array("f", vector.tobytes())
                else:
                    failed[sample] = NOT_FINITE
        return vectors, failed

    def _folded(self, pool: _Pool) -> Rows:
        if pool.state is None:
            raise RuntimeError("a lane is sampled before any of its rows were computed")
        vector = pool.state
        if self._recipe.pooling is Pooling.MEAN:
            vector = vector / np.float32(pool.rows)
        if self._recipe.normalise:
            vector = vector / max(np.linalg.norm(vector), _TINY)
        return vector.astype(np.float32, copy=False)
