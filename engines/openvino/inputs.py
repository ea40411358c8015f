"""The inputs of a step as arrays that are bound once and written in place.

A new tensor for each input of each step costs 57 us, writing into a bound one 1 us. An array has
room for the largest step; what a step uses of it is bound as a tensor over its first elements, and
tensors are kept by length, so that only a change of length binds anything.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from openvino import InferRequest, Tensor

from engines.openvino.paged_op import inputs_of
from engines.openvino.version import BLOCK_SIZE
from engines.step import StepPlan

MIN_ROWS = 2  # a lone row takes other kernels, with other rounding (docs/adr/0004)
_DECODING = ((32, 4), (128, 8), (1 << 30, 16))  # up to so many rows, multiples of
_MIXED = ((64, 8), (512, 32), (1 << 30, 64))

_KEPT = 1024  # tensors by length, per input
_Ints = npt.NDArray[np.signedinteger]


class _Bound:
    """One input: an array with room to grow, and the tensors over its beginnings."""

    def __init__(self, request: InferRequest, place: int, kind: type[np.signedinteger]) -> None:
        self._request = request
        self._place = place
        self._array: _Ints = np.zeros(64, kind)
        self._tensors: dict[int, Tensor] = {}
        self._bound = -1

    def room(self, length: int) -> _Ints:
        """The first `length` elements, bound; write them before the step."""
        if length > len(self._array):
            self._array = np.zeros(max(length, 2 * len(self._array)), self._array.dtype)
            self._tensors.clear()
            self._bound = -1
        if length != self._bound:
            self._request.set_input_tensor(self._place, self._tensor(length))
            self._bound = length
        return self._array[:length]

    def _tensor(self, length: int) -> Tensor:
        tensor = self._tensors.get(length)
        if tensor is None:
            if len(self._tensors) >= _KEPT:
                self._tensors.clear()
            tensor = Tensor(self._array[:length], shared_memory=True)
            self._tensors[length] = tensor
        return tensor


class StepInputs:
    """Writes plans into the inputs of a request."""

    def __init__(self, request: InferRequest, *, scratch: int) -> None:
        self._scratch = scratch
        places = {name: place for place, name in enumerate(inputs_of(0))}
        wide = {"tokens", "positions", "logits_rows"}
        self._of = {
            name: _Bound(request, place, np.int64 if name in wide else np.int32)
            for name, place in places.items()
            if name != "longest"
        }
        self._longest = np.zeros((), np.int32)
        request.set_input_tensor(places["longest"], Tensor(self._longest, shared_memory=True))

    def write(self, plan: StepPlan, logits_rows: npt.NDArray[np.int32]) -> None:
        """Take over a plan of at least one row, and which of its rows want logits.

        What rows are computed beside them, `padded` says: all of their blocks are the scratch
        block. Beside rows that decode each is a segment, as those are; else they are one segment.
        """
        rows, entries, wanted = plan.rows, len(plan.tables), len(logits_rows)
        decodes = rows == plan.segments
        spare = _spare(rows, decodes=decodes)
        ends = np.arange(1, spare.segments + 1)
        dummies = np.arange(spare.rows * spare.segments)
        self._put("tokens", plan.tokens, len(dummies))[rows:] = 0
        self._put("positions", plan.positions, len(dummies))[rows:] = dummies % spare.rows
        self._put("past_lens", plan.past, spare.segments)[plan.segments :] = 0
        self._put("blocks", plan.tables, spare.blocks * spare.segments)[entries:] = self._scratch
        row_starts = self._put("row_starts", plan.row_starts, spare.segments)
        row_starts[plan.segments + 1 :] = rows + spare.rows * ends
        block_starts = self._put("block_starts", plan.table_starts, spare.segments)
        block_starts[plan.segments + 1 :] = entries + spare.blocks * ends
        repeated = padded(wanted, decodes=decodes) - wanted
        last = logits_rows[-1] if wanted else 0
        self._put("logits_rows", logits_rows, repeated)[wanted:] = last
        self._longest[...] = max((plan.past + np.diff(plan.row_starts)).max(), spare.rows)

    def _put(self, name: str, values: npt.NDArray[np.int32], more: int) -> _Ints:
        """Values of an input; returns all of it, with room for some more behind them."""
        room = self._of[name].room(len(values) + more)
        room[: len(values)] = values
        return room


@dataclass(frozen=True, slots=True)
class _Spare:
    """Dummy segments behind those of a plan, each of so many rows and entries of its block table.

    plan        [chunk of a prompt] [row]                  [row] [row] [row]
    spare                                 [one segment]                      [row]
    """

    segments: int
    rows: int
    blocks: int


def _spare(rows: int, *, decodes: bool) -> _Spare:
    """What makes the rows of a plan one of few numbers."""
    dummies = padded(rows, decodes=decodes) - rows
    if decodes:
        return _Spare(dummies, 1, 1)
    return _Spare(min(dummies, 1), max(dummies, 1), -(-dummies // BLOCK_SIZE))


def padded(rows: int, *, decodes: bool) -> int:
    """How many rows are computed for so many, one at least, or so many logits.

    Another number than in the step before costs the plugin 2 to 5 ms, and one that it has never
    seen as much again, so there are few. Rows to spare beside such as decode cost next to nothing.
    """
    if rows <= MIN_ROWS:
        return MIN_ROWS
    grains = _DECODING if decodes else _MIXED
    grain = next(grain for most, grain in grains if rows <= most)
    return -(-rows // grain) * grain
