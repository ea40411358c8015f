"""Which samples of a step count, where some of its rows hold tokens that were guessed. Pure.

A decoding sequence may have drafts behind its last token: rows of one token each, all of them
sampled. A sample counts as long as each draft before it was what the sample before said; the first
that is not ends the run, and all after it is thrown away.

    row holds     last   d1   d2   d3
    sample says   d1     d2   x    y         counts: d1, d2, x
    counts        yes    yes  yes  no        computed for good: last, d1, d2

Every sample that counts was drawn from the logits, and with the noise, that it would have had
without drafts: so what a sequence says is the same, only sooner.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.step import Int32Array, StepPlan

IntpArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Drafts:
    """The samples of a plan with drafts, lane after lane."""

    first: BoolArray  # whether a sample is the first of its lane
    fed: Int32Array  # the token that its row holds
    offsets: IntpArray  # how many samples of its lane are before it

    def counted(self, tokens: npt.NDArray[np.integer]) -> BoolArray:
        """Which of the sampled tokens count."""
        wrong = np.zeros(len(tokens), np.intp)
        wrong[1:] = (self.fed[1:] != tokens[:-1]) & ~self.first[1:]
        so_far = wrong.cumsum()
        right: BoolArray = so_far == so_far[np.arange(len(tokens)) - self.offsets]
        return right


def drafts_of(plan: StepPlan) -> Drafts | None:
    """Copied out of the plan, whose buffers may be overwritten; None where nothing is drafted."""
    if not plan.drafts:
        return None
    lanes = plan.sample_lanes
    first = np.ones(len(lanes), np.bool_)
    first[1:] = lanes[1:] != lanes[:-1]
    starts = np.flatnonzero(first)
    offsets = np.arange(len(lanes)) - starts[first.cumsum() - 1]
    return Drafts(first, plan.tokens[plan.sample_rows], offsets)
