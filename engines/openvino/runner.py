"""The OpenVINO step runner: move blocks, run the graph over a plan's rows, sample."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engines.drafts import Drafts, drafts_of
from engines.guides.lanes import Grammars, LaneGuides
from engines.openvino.graph import Computing, Rows, StepGraph
from engines.openvino.kv import KvBlocks
from engines.openvino.loading import LoadedModel
from engines.openvino.mapped import let_go
from engines.openvino.prompt_scores import PromptScorer, Segment, rows_of
from engines.openvino.sampler import Sampler
from engines.openvino.vectors import Pooler, Vectors
from engines.step import BlockBytes, StepPlan, StepResult


@dataclass(frozen=True, slots=True)
class _Ticket:
    """A step that computes; its plan is copied as far as `collect` needs it."""

    plan: StepPlan
    computing: Computing | None  # None where a plan only moves blocks
    drafts: Drafts | None
    scored: tuple[Segment, ...]
    saved: Sequence[BlockBytes]


class OpenvinoRunner:
    """A StepRunner over one compiled model. Holds `num_blocks` KV blocks, of 32 tokens each.

    `launch` starts a step on the plugin's threads; `collect` waits for it and samples.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        num_blocks: int,
        max_lanes: int,
        grammars: Grammars | None = None,
    ) -> None:
        facts = loaded.facts
        self._kv = KvBlocks(
            layers=facts.layers,
            num_blocks=num_blocks,
            kv_heads=facts.kv_heads,
            head_dim=facts.head_dim,
            precision=loaded.precision.inference,
        )
        self._graph = StepGraph(loaded.compiled, self._kv, vocab=facts.vocab_size)
        guides = LaneGuides(facts.vocab_size, grammars)
        self._sampler = Sampler(max_lanes=max_lanes, vocab=facts.vocab_size, guides=guides)
        self._prompts = PromptScorer()
        self._weights = loaded.weights
        self._packed = False  # they are, by the end of the first step
        self._pooler = Pooler(facts.recipe)

    @property
    def block_bytes(self) -> int:
        return self._kv.block_bytes

    def launches_ahead(self, plan: StepPlan) -> bool:
        moves = bool(plan.saves or plan.restores or plan.copies)
        return not moves and len(np.unique(plan.segment_lanes)) == plan.segments  # in one part

    def read_blocks(self, blocks: Sequence[int]) -> list[BlockBytes]:
        return self._kv.save(blocks)

    def launch(self, plan: StepPlan) -> _Ticket:
        for start in plan.starts:
            self._sampler.start(start)
            self._prompts.start(start)
            self._pooler.start(start)
        self._kv.expect(plan.tables)
        saved = self._kv.save(plan.saves)
        self._kv.copy_blocks(plan.copies)
        self._kv.restore(plan.restores)
        scored = self._prompts.rows(plan)
        wanted = rows_of(plan, scored)
        hidden = not self._pooler.idle
        computing = self._graph.begin(plan, wanted, hidden=hidden) if plan.rows else None
        return _Ticket(_own(plan), computing, drafts_of(plan), scored, saved)

    def collect(self, ticket: object) -> StepResult:
        if not isinstance(ticket, _Ticket):
            raise TypeError(f"not a ticket of this runner: {type(ticket).__name__}")
        plan, samples = ticket.plan, len(ticket.plan.sample_rows)
        computing = ticket.computing
        out = self._graph.nothing() if computing is None else computing.outputs()
        if computing is not None and not self._packed:
            let_go(self._weights)
            self._packed = True
        lanes = plan.sample_lanes.astype(np.int64)
        drawn = self._sampler.sample(out.logits[:samples], lanes, ticket.drafts)
        self._prompts.feed(ticket.scored, out.logits[samples:])
        vectors, unsound = self._pooled(plan, out.hidden)
        return StepResult(
            drawn.tokens.astype(np.int32),
            drawn.logprobs,
            prompt_logprobs=self._prompts.told(plan),
            vectors=vectors,
            forced=drawn.steered.forced,
            failed={**drawn.steered.failed, **unsound},
            saved=ticket.saved,
        )

    def logits(self, plan: StepPlan) -> Rows:
        """Compute a plan's rows; raw float32 logits [samples, vocab], good until the next step."""
        return self._graph.begin(plan, plan.sample_rows, hidden=False).outputs().logits

    def _pooled(self, plan: StepPlan, hidden: Rows | None) -> Vectors:
        return ({}, {}) if hidden is None else self._pooler.feed(plan, hidden)

    def close(self) -> None:
        self._graph.close()
        self._kv.free()


def _own(plan: StepPlan) -> StepPlan:
    """A plan with copies of what is read after the step: its buffers may be overwritten before."""
    return replace(
        plan,
        row_starts=plan.row_starts.copy(),
        past=plan.past.copy(),
        segment_lanes=plan.segment_lanes.copy(),
        sample_rows=plan.sample_rows.copy(),
        sample_lanes=plan.sample_lanes.copy(),
    )
