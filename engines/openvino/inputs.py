"""The inputs of a step as arrays that are bound once and written in place.

A new tensor for each input of each step costs 57 us, writing into a bound one 1 us. An array has
room for the largest step; what a step uses of it is bound as a tensor over its first elements, and
tensors are kept by length, so that only a change of length binds anything.
"""

import numpy as np
import numpy.typing as npt
from openvino import InferRequest, Tensor

from engines.openvino.paged_op import inputs_of
from engines.step import StepPlan

MIN_ROWS = 2  # a lone row takes other kernels, with other rounding (docs/adr/0004)

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

        A lone row gets a dummy beside it, that writes to the scratch block.
        """
        dummy = plan.rows < MIN_ROWS
        self._put("tokens", plan.tokens, 0, dummy=dummy)
        self._put("positions", plan.positions, 0, dummy=dummy)
        self._put("past_lens", plan.past, 0, dummy=dummy)
        self._put("blocks", plan.tables, self._scratch, dummy=dummy)
        self._put("row_starts", plan.row_starts, plan.rows + 1, dummy=dummy)
        self._put("block_starts", plan.table_starts, len(plan.tables) + 1, dummy=dummy)
        wanted = self._of["logits_rows"].room(max(MIN_ROWS, len(logits_rows)))
        wanted[: len(logits_rows)] = logits_rows
        wanted[len(logits_rows) :] = logits_rows[-1] if len(logits_rows) else 0
        self._longest[...] = (plan.past + np.diff(plan.row_starts)).max()

    def _put(self, name: str, values: npt.NDArray[np.int32], last: int, *, dummy: bool) -> None:
        room = self._of[name].room(len(values) + dummy)
        room[: len(values)] = values
        if dummy:
            room[-1] = last
