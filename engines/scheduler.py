"""Continuous batching over a paged KV cache. No IO, clock, thread or tensor.

There is no prefill phase and no decode phase. A sequence has tokens and a count of those computed;
each plan gives every sequence as much of the difference as the step's token budget allows. That one
rule covers chunked prompts, prefix hits, recompute after preemption and decoding.

Four verbs: `add`, `abort`, `plan`, `apply`. Plans and applies alternate; adds and aborts come
between an apply and the next plan, when nothing is in flight.

Order within a step: every decoding sequence (one row each), then sequences that are behind, then
the waiting line; but those first whose tenant was served least (docs/adr/0012). When a decoding
sequence needs a block and none is free, the least senior running one (lowest priority, then
youngest) gives all its back and waits at the front; the cache usually keeps what it had computed.

All of it stands in one file, since every part works on the same lanes and under the same invariants
(docs/testing.md): cut apart, each piece would have to restate them.

Two rules keep logits bitwise independent of scheduling, on engines whose kernels allow it:
a prompt is never cut so that a chunk has exactly one token, since one-row segments take another
kernel; and output recomputed after preemption is replayed as one-row segments, as it was first
computed, never as a chunk. (The third, never to run a step of one row, is the runner's.)
"""

import numpy as np

from engines.api import GenerationRequest, RequestId
from engines.drafting import Drafter
from engines.lanes import Lanes
from engines.limits import Limits
from engines.metering import Meter
from engines.outcome import Counters, StepOutcome
from engines.pacing import Pace
from engines.plan_writer import PlanWriter
from engines.reserving import Reserver
from engines.sealing import Sealer
from engines.sequence import NO_LANE, Sequence, open_choices
from engines.sharing import place_of
from engines.step import BlockBytes, LaneStart, StepPlan, StepResult
from engines.tables import IntpArray
from engines.taking import Taker
from engines.tiers.moves import Moves
from engines.waiting import WaitingLine
from kvcache.pool import BlockPool
from kvcache.tiers import Tiers

_NO_LANES: IntpArray = np.zeros(0, np.intp)
_SCORED_ROWS = 512  # of a prompt in a step, where each has a row of logits, over the vocabulary
_SMALLEST_BUDGET = 3  # rows in which every prompt remainder has a legal chunk, see _chunk


class Scheduler:
    """Decides what runs next, and owns every sequence, lane and block table.

    `namespace` tells this cache from those of other models (kvcache.naming); salts divide it. With
    `tiers`, what the pool evicts is kept there, and comes back instead of being computed again.
    """

    def __init__(
        self,
        limits: Limits,
        pool: BlockPool,
        *,
        namespace: bytes = b"",
        tiers: Tiers[BlockBytes] | None = None,
    ) -> None:
        self.limits = limits
        self.pool, self.tiers = pool, tiers
        self.counters = Counters()
        self._lanes = Lanes(limits)
        self._meter = Meter(limits, self._lanes)
        self.waiting = WaitingLine(limits.ageing_steps, self._meter.service)
        self._writer = PlanWriter(limits, self._lanes)
        self._sealer = Sealer(self._lanes, pool)
        self._drafter = Drafter(limits, self._lanes)
        self._taker = Taker(self._lanes, self._sealer, self._drafter)
        self._pace = Pace(limits.step_target_s) if limits.step_target_s else None
        self._running: list[Sequence] = []  # in order of admission; followers join when they part
        self._reserver = Reserver(self._lanes, pool, self._running, self._preempt)
        self._open: dict[RequestId, list[Sequence]] = {}  # choices that have not ended
        self._namespace = namespace
        self._moves = None if tiers is None else Moves(tiers, pool)
        self._arrivals = 0
        self._starts: list[LaneStart] = []
        self._advances: list[tuple[IntpArray, int]] = []  # (lanes, rows each) of the plan
        self._decoding = _NO_LANES  # those that the plan computes the last token of
        self._parting: list[Sequence] = []  # leaders whose prompt the plan completes

    @property
    def running(self) -> int:
        """Sequences that hold a lane."""
        return self.limits.max_running - self._lanes.free

    @property
    def has_work(self) -> bool:
        """Whether the next plan has rows."""
        return bool(self._running or self.waiting)

    def tables(self) -> dict[tuple[RequestId, int], list[int]]:
        """The block table of every running choice: for audits."""
        return {
            (sequence.request.id, sequence.choice): self._lanes.tables.blocks(sequence.lane)
            for sequence in self._running
        }

    def add(self, request: GenerationRequest) -> None:
        """Queue a request that `limits.check` accepts. Its id must not be in use."""
        place = place_of(self._namespace, request, self.limits.block_size)
        account = self._meter.service.enter(request.tenant)
        heads = open_choices(request, place, account, self._arrivals, self.counters.steps)
        self._arrivals += 1
        self._open[request.id] = [member for head in heads for member in head.group]
        for head in heads:
            self.waiting.push(head)

    def abort(self, request_id: RequestId, choice: int | None = None) -> None:
        """End a request, or one choice of it: its blocks are free when this returns.

        Unknown or ended ones are ignored, since an abort may cross a finish on its way. A choice
        that has not parted from its siblings yet ends when it does: it holds nothing of its own.
        """
        choices = self._open.get(request_id, [])
        for sequence in choices:
            sequence.ended |= choice in (None, sequence.choice)
        if choices and choices[0].followers and not all(member.ended for member in choices):
            return
        for sequence in [member for member in choices if member.ended]:
            self._drop(sequence)

    def plan(self) -> StepPlan:
        """What to compute next: within the token budget, and not empty if `has_work`."""
        self._writer.begin()
        self._advances, self._parting = [], []
        self._reserver.reserve()
        self._displace()
        behind = self._plan_decoding()
        self._meter.begin(contended=bool(self.waiting) or len(behind) > 1)
        self._begin_pace(behind)
        for sequence in sorted(behind, key=self._meter.turn):
            self._plan_line(before=sequence)
            self._plan_behind(sequence)
        self._plan_line()
        plan = self._writer.plan(self._reserver.take_copies(), self._starts)
        self._starts = []
        return plan if self._moves is None else self._moves.plan(plan)

    def apply(self, plan: StepPlan, result: StepResult, took_s: float | None = None) -> StepOutcome:
        """Take in the result of the last plan: advance, seal, part choices, end what is done.

        `took_s` is how long the step was, for the pace.
        """
        self.counters.steps += 1
        self.counters.drafted_tokens += plan.drafts
        self._keep_pace(plan, took_s)
        if self._moves is not None:
            self._moves.apply(result)
        for lanes, rows in self._advances:
            self._lanes.computed[lanes] += rows
            self._sealer.seal(lanes)
        for leader in self._parting:
            self._part(leader)
        outcome = self._taker.take(plan, result, self._decoding)
        self._meter.output(outcome)
        self.counters.accepted_tokens += outcome.accepted
        sequences = outcome.sequences
        gone = [sequences[index] for index in outcome.finishes]
        if self._parting:  # some may have been aborted while they could not end yet
            gone += [each for each in sequences if each.ended and each not in gone]
        for sequence in gone:
            self._drop(sequence)
        return outcome

    def _budget(self, start: int = 0) -> int:
        """Rows that the step has left for a sequence that is computed up to `start`."""
        left = self.limits.tokens_per_step - self._writer.rows
        return left if self._pace is None else self._pace.within(left, start)

    def _begin_pace(self, behind: list[Sequence]) -> None:
        if self._pace is not None:
            waiting = sum(len(each.log) == each.prompt_len for each in behind)
            waiting += min(len(self.waiting), self._lanes.free)  # others it would not help
            decoding = self._decoding
            keys = int(self._lanes.length[decoding].sum()) if len(decoding) else 0
            self._pace.begin(len(decoding), keys, waiting)

    def _keep_pace(self, plan: StepPlan, took_s: float | None) -> None:
        """Have the pace learn from a step; of those that only decode every eighth is enough.

        The first one is left out: much is done in it that is done once.
        """
        prompts, step = plan.rows > len(self._decoding) + plan.drafts, self.counters.steps
        if self._pace is None or took_s is None or step == 1 or not (prompts or step % 8 == 0):
            return
        keys = int(plan.positions.sum(dtype=np.intp)) + plan.rows
        self._pace.observe(plan.rows, keys, took_s, prompts=prompts)

    # -- giving up

    def _preempt(self, sequence: Sequence) -> None:
        self.counters.preemptions += 1
        self._leave(sequence)
        self.waiting.push(sequence)

    def _displace(self) -> None:
        """Have a tenant with more than its share of lanes give one to a tenant that is due."""
        head = self.waiting.head(self.counters.steps) if self._meter.service.shared else None
        if head is None or not self._is_short(head):
            return
        if victim := self._meter.displaced_by(head, self._running):
            victim.displaced = True
            self._preempt(victim)

    def _is_short(self, head: Sequence) -> bool:
        blocks = self.limits.blocks_for(len(head.log))
        return self._lanes.free < len(head.group) or self.pool.free < blocks

    def _leave(self, sequence: Sequence) -> None:
        """Take the lanes and blocks of a running sequence (and of its followers) back."""
        self._running.remove(sequence)
        for member in sequence.group:
            self.pool.release(self._lanes.unbind(member))

    # -- rows

    def _plan_decoding(self) -> list[Sequence]:
        """One row for every sequence with one token to compute; returns the others."""
        lanes = self._lanes
        running = lanes.active()
        computed = lanes.computed[running]
        behind = lanes.length[running] - computed != 1
        behind |= lanes.parting[running]
        others = running[behind]
        if len(others):
            running, computed = running[~behind], computed[~behind]
        if len(running):
            self._write_decoding(running, computed, alone=not (len(others) or self.waiting))
            self._advances.append((running, 1))
        self._decoding = running
        return lanes.occupants(others)

    def _write_decoding(self, lanes: IntpArray, computed: IntpArray, *, alone: bool) -> None:
        """Drafts only where no prompt wants the rows."""
        drafts = self._drafter.draft(lanes) if alone else None
        if drafts is None:
            self._writer.decode(lanes, computed)
        else:
            self._writer.decode_drafts(lanes, computed, drafts)

    def _plan_behind(self, sequence: Sequence) -> None:
        """As many pending tokens as the budget allows: prompt as a chunk, output as single rows."""
        lane, lanes = sequence.lane, self._lanes
        start, length = int(lanes.computed[lane]), int(lanes.length[lane])
        prompt_left = max(sequence.prompt_len - start, 0)
        chunk = _chunk(prompt_left, self._chunk_budget(sequence, start))
        if chunk:
            self._writer.run(lane, start, chunk)
            self._meter.prompt(sequence, start + chunk)
        end = start + chunk
        if chunk == prompt_left and end < length:
            end += self._replay(lane, end, min(length - end, self._budget(end)))
        if end > start:
            if self._pace is not None:
                self._pace.take(start, end - start)
            self._advances.append((np.array([lane]), end - start))
        if end == length:
            group = np.array([member.lane for member in sequence.group])
            self._writer.sample_last(group)
            if sequence.followers:
                self._parting.append(sequence)

    def _chunk_budget(self, sequence: Sequence, start: int) -> int:
        """The same for a chunk of a prompt: few where the logits of all its rows are wanted."""
        budget, scored = self._budget(start), sequence.request.sampling.prompt_logprobs is not None
        return min(budget, _SCORED_ROWS) if scored and not self.limits.whole_prompts else budget

    def _replay(self, lane: int, start: int, count: int) -> int:
        if count:
            self._writer.replay(lane, np.arange(start, start + count))
        return count

    # -- coming in

    def _admit(self, head: Sequence) -> bool:
        """Move the head of the line into lanes, with blocks for all its tokens, if they fit."""
        group, whole = head.group, self.limits.whole_prompts
        if self._lanes.free < len(group) or (whole and head.prompt_len > self._budget()):
            return False
        hit, kept = self._hit(head)
        need = self.limits.blocks_for(len(head.log)) - len(hit)
        if need > self.pool.free - self.pool.idle(hit):
            return False
        self.waiting.take(head)
        found = len(hit) + len(kept)
        self.counters.device_hits += len(hit)
        self._count_hit(head, found * self.limits.block_size)
        lanes = self._lanes
        for member in group:
            self._drafter.begin(lanes.bind(member), member.request)
            self._starts.append(member.lane_start())
        self.pool.share(hit)
        lane = head.lane
        lanes.tables.extend(lane, hit + self.pool.take(need))
        lanes.tables.sealed[lane] = found
        lanes.computed[lane] = found * self.limits.block_size
        lanes.parting[lane] = bool(head.followers)
        lanes.run(lane)
        self._running.append(head)
        self._restore(lane, len(hit), kept)
        return True

    def _restore(self, lane: int, start: int, kept: list[BlockBytes]) -> None:
        """Have the blocks from `start` on filled with what was kept, and findable at once."""
        if self._moves is not None and kept:
            self._sealer.seal_blocks(lane, start, start + len(kept))
            self._moves.restore(self._lanes.tables.blocks(lane)[start : start + len(kept)], kept)

    def _plan_line(self, before: Sequence | None = None) -> None:
        """Let in who waits, while there is room; `before` a running one only who is due first."""
        while self._budget() >= _SMALLEST_BUDGET and (
            head := self.waiting.head(self.counters.steps)
        ):
            if not (before is None or self._meter.is_due(head, before)) or not self._admit(head):
                return
            self._plan_behind(head)

    def _hit(self, sequence: Sequence) -> tuple[list[int], list[BlockBytes]]:
        """Cached blocks, and contents of those that follow in slower tiers.

        They are for all but the last token, which must be computed to be sampled.
        """
        if sequence.request.needs_every_row and len(sequence.log) == sequence.prompt_len:
            return [], []
        hit = self.pool.match(sequence.namespace, sequence.log[:-1], sequence.turn)
        kept = [] if self._moves is None else self._moves.beyond(sequence, len(hit))
        left = sequence.prompt_len - (len(hit) + len(kept)) * self.limits.block_size
        if left == 1 and (hit or kept):
            (kept or hit).pop()  # a prompt chunk of one token would not be exact
        return hit, kept

    def _count_hit(self, sequence: Sequence, tokens: int) -> None:
        if not sequence.admitted:
            sequence.admitted = True
            sequence.cached = min(tokens, sequence.prompt_len)  # not what it goes on behind
            self.counters.prefix_hit_tokens += sequence.cached
            self.counters.prefix_query_tokens += sequence.prompt_len

    # -- after a step

    def _part(self, leader: Sequence) -> None:
        """The prompt is computed: followers share its blocks and become sequences themselves."""
        lanes = self._lanes
        forked = bool(lanes.length[leader.lane] % self.limits.block_size)
        followers, leader.followers = leader.followers, []
        lanes.parting[leader.lane] = False
        if forked:
            lanes.tables.fork(leader.lane)
        for follower in followers:
            lanes.part(leader.lane, follower.lane)
            lanes.tables.forked[follower.lane] = forked
            self.pool.share(lanes.tables.blocks(follower.lane))
            follower.cached, follower.admitted = leader.cached, True
            lanes.run(follower.lane)
            self._running.append(follower)

    def _drop(self, sequence: Sequence) -> None:
        """Forget a sequence (with its followers) and free all it holds."""
        if sequence in self._running:
            self._leave(sequence)
        elif sequence.lane == NO_LANE:
            self.waiting.remove(sequence)
        choices = self._open[sequence.request.id]
        choices.remove(sequence)
        if not choices:
            del self._open[sequence.request.id]
            self._meter.service.leave(sequence.account)


def _chunk(left: int, budget: int) -> int:
    """How much of a prompt's remainder to compute: never one token, never leaving one behind.

    Only a prompt of a single token is computed alone; it always is, so it is exact as well.
    """
    chunk = min(left, budget)
    if left - chunk == 1:
        chunk -= 1
    return chunk if chunk > 1 or chunk == left else 0
