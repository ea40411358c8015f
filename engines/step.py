"""One engine step as flat arrays: what the scheduler plans and what a runner gives back.

A step first reads the blocks in `saves`, then carries out `copies`, then `restores`, then its rows:
each may overwrite what an earlier one reads, and none what a later one does.

A plan is a ragged batch of *rows*, one per token to compute, grouped into *segments*. A segment is
a run of consecutive tokens of one sequence; a decoding sequence is a segment of one row. Rows of
all segments write their keys and values first, then attend, so segments of one sequence may share
a step.

    segment        0               1       2
    tokens         p0 p1 p2 p3     d       q7 q8 q9        int32 [rows]
    positions      0  1  2  3      12      7  8  9         int32 [rows]
    write_slots    block * block_size + offset of each     int32 [rows]
    row_starts     0               4       5       8       int32 [segments + 1]
    past           0               12      7               int32 [segments], tokens before the run
    segment_lanes  0               5       1               int32 [segments]
    tables         b0              b4 b9   b2 b3           int32 [entries], KV blocks in order
    table_starts   0               1       3       5       int32 [segments + 1]
    sample_rows    3 3 4                                   int32 [samples], rows whose logits count
    sample_lanes   0 1 5                                   int32 [samples], who gets the token

One row may be sampled several times: that is how the choices of an n > 1 request leave the prompt.
A lane may be sampled on several rows one after the other: those behind the first hold *drafts*, and
which of the samples count follows from them (engines.drafts).
A *lane* is a small integer naming a running sequence for as long as it runs; runners keep their
per-sequence sampling state in arrays indexed by lane.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from engines.api import Sampling, TokenLogprobs

Int32Array = npt.NDArray[np.int32]
BlockBytes = npt.NDArray[np.uint8]  # the content of one KV block, as its runner lays it out


@dataclass(frozen=True, slots=True)
class LaneStart:
    """A sequence takes a lane: everything a sampler must know to sample, or to go on sampling.

    `generated` holds the tokens emitted so far when a preempted sequence comes back, or one that
    began on another engine goes on: penalties, bans, guides and noise positions are rebuilt by
    replaying the log.
    """

    lane: int
    choice: int
    sampling: Sampling
    prompt: Sequence[int]
    generated: Sequence[int] = ()
    pooled: bool = False  # its sample wants the pooled hidden state of all its rows
    second: int = 0  # where the second text of a pair begins; 0: there is one text


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step computes. Arrays are views into buffers that the next plan overwrites."""

    tokens: Int32Array
    positions: Int32Array
    write_slots: Int32Array
    row_starts: Int32Array
    past: Int32Array
    segment_lanes: Int32Array
    tables: Int32Array
    table_starts: Int32Array
    sample_rows: Int32Array
    sample_lanes: Int32Array
    copies: Sequence[
        tuple[int, int]
    ] = ()  # (from, to) whole blocks, done before any row is written
    starts: Sequence[LaneStart] = ()  # lanes (re)assigned since the last plan, before any sampling
    saves: Sequence[int] = ()  # blocks whose bytes the result must bring: for MovesBlocks only
    restores: Sequence[tuple[int, BlockBytes]] = ()  # what to put into blocks, likewise
    drafts: int = 0  # rows that hold tokens that were guessed: for runners that take drafts

    @property
    def rows(self) -> int:
        return len(self.tokens)

    @property
    def segments(self) -> int:
        return len(self.past)


@dataclass(frozen=True, slots=True)
class StepResult:
    """One token per sample of the plan, in its order; the rest by sample index, where there is any.

    Of samples that do not count nothing is remembered, and whatever is told of them is not used.
    `forced` tokens follow the sampled one because nothing else may; they are computed as pending
    rows. `failed` says why a sequence cannot go on (its grammar met a limit): its request alone
    fails, with that message.
    """

    tokens: Int32Array
    logprobs: Mapping[int, TokenLogprobs] = field(default_factory=dict)
    prompt_logprobs: Mapping[int, Sequence[TokenLogprobs]] = field(default_factory=dict)
    vectors: Mapping[int, Sequence[float]] = field(default_factory=dict)
    forced: Mapping[int, Sequence[int]] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    saved: Sequence[BlockBytes] = ()  # of the plan's saves; they keep, whatever the runner does


class StepRunner(Protocol):
    """The only thing that touches tensors. One thread launches and collects steps, in order.

    Any exception it raises is fatal to the engine: there is no going on with a broken device.
    """

    def launch(self, plan: StepPlan) -> object:
        """Start computing; returns a ticket. The plan's arrays may be overwritten afterwards."""

    def collect(self, ticket: object) -> StepResult:
        """Wait for a launched step and return its sampled tokens."""

    def close(self) -> None:
        """Free device memory, after the last step; from any thread. Idempotent."""


@runtime_checkable
class LaunchesAhead(Protocol):
    """A StepRunner whose `launch` may return while the device still computes."""

    def launches_ahead(self, plan: StepPlan) -> bool:
        """Whether it does so at once for this plan: nothing is copied or computed before."""


@runtime_checkable
class MovesBlocks(Protocol):
    """A StepRunner that carries out the saves and restores of a plan: what slower tiers need."""

    @property
    def block_bytes(self) -> int:
        """The size of every block's content."""

    def read_blocks(self, blocks: Sequence[int]) -> Sequence[BlockBytes]:
        """The contents of blocks, between steps."""
