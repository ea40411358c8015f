"""The step runner of encoders: whole texts in, one forward pass, their vectors out."""

import numpy as np
import torch
from torch import Tensor, nn

from engines.step import StepPlan, StepResult
from engines.torch.bidirectional import bunches
from engines.torch.encoder_loading import LoadedEncoder
from engines.torch.vectors import Pooler, Vectors


class EncoderRunner:
    """A StepRunner that makes vectors only. Every segment of its plans is a whole prompt.

    It keeps no keys and values: the blocks of a plan are the scheduler's book-keeping.
    """

    def __init__(self, loaded: LoadedEncoder) -> None:
        self._module: nn.Module | None = loaded.module
        self._facts = loaded.facts
        self._device = loaded.device
        self._pooler = Pooler(loaded.head)
        self._second: dict[int, int] = {}  # where the second text begins, by lane

    def launch(self, plan: StepPlan) -> tuple[int, Vectors]:
        for start in plan.starts:
            self._pooler.start(start)
            self._second[start.lane] = start.second
        with torch.inference_mode():
            vectors = self._pooler.feed(plan, self._hidden(plan))
        return len(plan.sample_lanes), vectors

    def collect(self, ticket: object) -> StepResult:
        match ticket:
            case (int(samples), Vectors() as made):
                vectors, failed = made.read()
                # The one token that a pooled request must ask for.
                return StepResult(np.zeros(samples, np.int32), vectors=vectors, failed=failed)
        raise TypeError(f"not a ticket of this runner: {type(ticket).__name__}")

    def close(self) -> None:
        self._module = None

    def _hidden(self, plan: StepPlan) -> Tensor:
        """The hidden states [rows, hidden] of a plan's rows."""
        if self._module is None:
            raise RuntimeError("the runner is closed")
        if plan.past.any():
            raise ValueError("an encoder was given part of a prompt")
        # One dummy row behind the others pads texts for attention, and keeps a lone row company.
        tokens = np.append(plan.tokens, 0)
        positions = np.append(plan.positions, 0) + self._facts.first_position
        out = self._module(
            input_ids=self._row(tokens),
            position_ids=self._row(positions),
            bunches=bunches(plan.row_starts.tolist(), plan.rows, self._device),
            **self._token_types(plan),
        )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    def _token_types(self, plan: StepPlan) -> dict[str, Tensor]:
        if self._facts.token_types < 2:
            return {}
        types = np.zeros(plan.rows + 1, np.int64)
        starts = plan.row_starts.tolist()
        for segment, lane in enumerate(plan.segment_lanes.tolist()):
            if self._second.get(lane):
                types[starts[segment] + self._second[lane] : starts[segment + 1]] = 1
        return {"token_type_ids": self._row(types)}

    def _row(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self._device)[None]
