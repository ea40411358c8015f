"""A compiled graph over its KV blocks: computes the rows of a plan, gives logits and hidden states.

The outputs are the plugin's own memory, which the next step overwrites.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from openvino import CompiledModel, InferRequest

from engines.openvino.inputs import StepInputs
from engines.openvino.kv import KvBlocks
from engines.openvino.parts import Part, parts_of
from engines.step import Int32Array, StepPlan

Rows = npt.NDArray[np.float32]

_LOGITS, _HIDDEN = 0, 1  # outputs of a lowered graph


@dataclass(frozen=True, slots=True)
class Outputs:
    """Float32 logits [wanted rows, vocab]; hidden states [rows, width] where asked for."""

    logits: Rows
    hidden: Rows | None

    def copy(self) -> "Outputs":
        """The same in memory of its own."""
        hidden = None if self.hidden is None else self.hidden.copy()
        return Outputs(self.logits.copy(), hidden)


@dataclass(frozen=True, slots=True)
class Computing:
    """A step that is under way: all of its parts but the last are done."""

    request: InferRequest
    parts: tuple[Part, ...]
    done: tuple[Outputs, ...]
    wanted: Int32Array
    hidden: bool

    def outputs(self) -> Outputs:
        """Wait. They are the plugin's memory: good until the next step."""
        self.request.wait()
        last = _outputs(self.request, self.parts[-1], self.wanted, hidden=self.hidden)
        if not self.done:
            return last
        each = list(zip(self.parts, (*self.done, last), strict=True))
        logits = np.empty((len(self.wanted), last.logits.shape[1]), np.float32)
        for part, own in each:
            logits[part.wanted(self.wanted)[0]] = own.logits
        if last.hidden is None:
            return Outputs(logits, None)
        rows = sum(part.plan.rows for part in self.parts)
        hidden = np.empty((rows, last.hidden.shape[1]), np.float32)
        for part, own in each:
            if own.hidden is not None:
                hidden[part.rows] = own.hidden
        return Outputs(logits, hidden)


class StepGraph:
    """One request of a compiled model, bound to KV blocks and to the arrays of its inputs."""

    def __init__(self, compiled: CompiledModel, kv: KvBlocks, *, vocab: int) -> None:
        self._request: InferRequest | None = compiled.create_infer_request()
        for name, tensor in kv.tensors():
            self._request.set_tensor(name, tensor)
        self._inputs = StepInputs(self._request, scratch=kv.scratch)
        self._vocab = vocab

    def begin(self, plan: StepPlan, wanted: Int32Array, *, hidden: bool) -> Computing:
        """Start to compute a plan of at least one row; logits of `wanted` rows, in that order.

        The plan may be overwritten afterwards. Raises RuntimeError once closed.
        """
        if self._request is None:
            raise RuntimeError("the runner is closed")
        parts = parts_of(plan)
        wanted = wanted.copy()
        done = []
        for part in parts[:-1]:
            self._start(self._request, part, wanted)
            self._request.wait()
            done.append(_outputs(self._request, part, wanted, hidden=hidden).copy())
        self._start(self._request, parts[-1], wanted)
        return Computing(self._request, parts, tuple(done), wanted, hidden)

    def nothing(self) -> Outputs:
        """What a step without rows puts out."""
        return Outputs(np.empty((0, self._vocab), np.float32), None)

    def close(self) -> None:
        """Let go of the model. Idempotent."""
        self._request = None

    def _start(self, request: InferRequest, part: Part, wanted: Int32Array) -> None:
        _, rows = part.wanted(wanted)
        self._inputs.write(part.plan, rows)
        request.start_async()


def _outputs(request: InferRequest, part: Part, wanted: Int32Array, *, hidden: bool) -> Outputs:
    """Without the rows that pad."""
    count = len(part.wanted(wanted)[0])
    states = _output(request, _HIDDEN)[: part.plan.rows] if hidden else None
    return Outputs(_output(request, _LOGITS)[:count], states)


def _output(request: InferRequest, place: int) -> Rows:
    rows: Rows = request.get_output_tensor(place).data
    return rows
