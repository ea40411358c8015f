"""The inputs of a step as arrays that are bound once and written in place.

A new tensor for each input of each step costs 57 us, writing into a bound one 1 us. An array has
room for the largest step; what a step uses of it is bound as a tensor over its first elements, and
tensors are kept by length, so that only a change of length binds anything.
"""

import numpy as np
import numpy.typing as npt
from openvino import InferRequest, Tensor

from engines.openvino.paged_op import inputs_of
from engines.openvino.version import BLOCK_SIZE
from engines.step import StepPlan

MIN_ROWS = 2  # a lone row takes other kernels, with other rounding (docs/adr/0004)
_EXACT_ROWS = 64  # up to here every number of rows is computed as it is
_GRAIN = 32  # up to how many rows, and twice that beyond
_COARSE_ROWS = 512
_WANTED_GRAIN = 8

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

        What rows are computed beside them, `padded` says: a segment of their own, all of whose
        blocks are the scratch block.
        """
        rows, wanted = plan.rows, len(logits_rows)
        dummies = padded(rows) - rows
        self._put("tokens", plan.tokens, dummies)[rows:] = 0
        self._put("positions", plan.positions, dummies)[rows:] = np.arange(dummies)
        some, blocks = int(dummies > 0), -(-dummies // BLOCK_SIZE)
        self._put("past_lens", plan.past, some)[plan.segments :] = 0
        self._put("blocks", plan.tables, blocks)[len(plan.tables) :] = self._scratch
        self._put("row_starts", plan.row_starts, some)[-1] = rows + dummies
        self._put("block_starts", plan.table_starts, some)[-1] = len(plan.tables) + blocks
        repeated = padded_wanted(rows, wanted) - wanted
        last = logits_rows[-1] if wanted else 0
        self._put("logits_rows", logits_rows, repeated)[wanted:] = last
        self._longest[...] = max((plan.past + np.diff(plan.row_starts)).max(), dummies)

    def _put(self, name: str, values: npt.NDArray[np.int32], more: int) -> _Ints:
        """Values of an input; returns all of it, with room for some more behind them."""
        room = self._of[name].room(len(values) + more)
        room[: len(values)] = values
        return room


def padded(rows: int) -> int:
    """How many rows are computed for so many: the plugin makes new kernels for every number.

    That takes 5 to 15 ms, so steps with prompts have one of some 50 numbers of rows. Those that
    only decode stay as they are: another kind of segment among them would cost more.
    """
    if rows <= _EXACT_ROWS:
        return max(rows, MIN_ROWS)
    grain = _GRAIN if rows <= _COARSE_ROWS else 2 * _GRAIN
    return -(-rows // grain) * grain


def padded_wanted(rows: int, wanted: int) -> int:
    """The same of the rows among them whose logits are wanted."""
    grain = 1 if rows <= _EXACT_ROWS else _WANTED_GRAIN
    return max(-(-wanted // grain) * grain, MIN_ROWS)
