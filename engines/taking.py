"""Takes in what a step has sampled: new tokens, what was forced or guessed right, ends. Pure."""

import numpy as np

from engines.drafting import Drafter
from engines.drafts import drafts_of
from engines.lanes import Lanes
from engines.outcome import StepOutcome, ended
from engines.sealing import Sealer
from engines.step import StepPlan, StepResult
from engines.tables import IntpArray


class Taker:
    """Appends to the lanes; the rows of the plan have been counted as computed before."""

    def __init__(self, lanes: Lanes, sealer: Sealer, drafter: Drafter) -> None:
        self._lanes = lanes
        self._sealer = sealer
        self._drafter = drafter

    def take(self, plan: StepPlan, result: StepResult, decoding: IntpArray) -> StepOutcome:
        """What the step brought. `decoding`: the lanes that it computed the last token of."""
        lanes, tokens, samples = decoding, result.tokens, None
        if drafts := drafts_of(plan):
            lanes, tokens = plan.sample_lanes[drafts.first].astype(np.intp), tokens[drafts.first]
            samples = self._drafter.verify(drafts, lanes, result.tokens)
        elif len(lanes) != len(plan.sample_lanes):  # mostly they are all that was sampled
            lanes = plan.sample_lanes.astype(np.intp)
        self._lanes.append(lanes, tokens)
        more = self._append_forced(lanes, result, samples)
        last = tokens
        if samples is not None:
            more |= self._append_drafts(lanes, result, samples)
            last = result.tokens[[run[-1] for run in samples]]
        finishes = ended(self._lanes, lanes, last)
        sequences = self._lanes.occupants(lanes)
        return StepOutcome(sequences, tokens.tolist(), more, finishes, result, lanes, samples)

    def _append_forced(
        self, lanes: IntpArray, result: StepResult, samples: list[range] | None
    ) -> dict[int, list[int]]:
        if not result.forced:
            return {}
        firsts = range(len(lanes)) if samples is None else [run[0] for run in samples]
        return {
            index: self._lanes.append_more(int(lanes[index]), result.forced[first])
            for index, first in enumerate(firsts)
            if first in result.forced
        }

    def _append_drafts(
        self, lanes: IntpArray, result: StepResult, samples: list[range]
    ) -> dict[int, list[int]]:
        """What was guessed right is computed already, but for the last token as ever."""
        more = {}
        for index, run in enumerate(samples):
            if right := result.tokens[run[1:]].tolist():
                lane = lanes[index : index + 1]
                more[index] = self._lanes.append_more(int(lane[0]), right)
                self._lanes.computed[lane] += len(right)
                self._sealer.seal(lane)
        return more
