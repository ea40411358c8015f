"""Hand-made step plans: sequences over shuffled blocks and a driver without any policy."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engines.api import Sampling, TokenLogprobs
from engines.step import LaneStart, StepPlan, StepRunner

GREEDY = Sampling(max_tokens=1 << 20, temperature=0.0)


@dataclass
class Seq:
    """One sequence: its tokens, how many are computed, and where they lie."""

    lane: int
    tokens: list[int]
    prompt: int  # tokens of the prompt
    computed: int = 0
    table: list[int] = field(default_factory=list)
    choice: int = 0
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.prompt :]

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed


@dataclass(frozen=True)
class Run:
    """Compute the next `rows` tokens of a sequence; sample when that reaches its end."""

    seq: Seq
    rows: int
    split: bool = False  # as one-row segments instead of one segment


class Driver:
    """Turns runs into plans, hands out blocks in shuffled order, and appends sampled tokens."""

    def __init__(self, runner: StepRunner, *, num_blocks: int, block_size: int, seed: int = 0):
        self.runner = runner
        self.block_size = block_size
        self.free = np.random.default_rng(seed).permutation(num_blocks).tolist()
        self.starts: list[LaneStart] = []

    def start(
        self,
        lane: int,
        prompt: Sequence[int],
        sampling: Sampling = GREEDY,
        *,
        generated: Sequence[int] = (),
        choice: int = 0,
    ) -> Seq:
        self.starts.append(LaneStart(lane, choice, sampling, tuple(prompt), tuple(generated)))
        return Seq(lane, [*prompt, *generated], len(prompt), choice=choice)

    def end(self, seq: Seq) -> None:
        self.free += seq.table
        seq.table.clear()

    def fork(self, parent: Seq, lanes: Sequence[int], sampling: Sampling = GREEDY) -> list[Seq]:
        """Lanes that will leave the prompt of `parent` together with it."""
        prompt = parent.tokens[: parent.prompt]
        return [self.start(lane, prompt, sampling, choice=i) for i, lane in enumerate(lanes, 1)]

    def plan(self, runs: Sequence[Run], *, forks: Sequence[Seq] = (), copies=()) -> StepPlan:
        """The plan of these runs; `forks` sample the last row of the first run as well."""
        segments = [piece for run in runs for piece in self._pieces(run)]
        tokens, positions, slots, past, tables = [], [], [], [], []
        samples: list[tuple[int, int]] = []
        for seq, first, last in segments:
            self._reserve(seq, last)
            at = range(first, last)
            tokens += seq.tokens[first:last]
            positions += at
            slots += [
                seq.table[p // self.block_size] * self.block_size + p % self.block_size for p in at
            ]
            past.append(first)
            tables.append(seq.table[: -(-last // self.block_size)])
            if last == len(seq.tokens):
                samples.append((len(tokens) - 1, seq.lane))
        samples += [(samples[0][0], fork.lane) for fork in forks]
        starts, self.starts = tuple(self.starts), []
        return StepPlan(
            tokens=_ints(tokens),
            positions=_ints(positions),
            write_slots=_ints(slots),
            row_starts=_ints(np.cumsum([0] + [b - a for _, a, b in segments])),
            past=_ints(past),
            segment_lanes=_ints([seq.lane for seq, _, _ in segments]),
            tables=_ints([block for table in tables for block in table]),
            table_starts=_ints(np.cumsum([0] + [len(table) for table in tables])),
            sample_rows=_ints([row for row, _ in samples]),
            sample_lanes=_ints([lane for _, lane in samples]),
            copies=tuple(copies),
            starts=starts,
        )

    def step(
        self, runs: Sequence[Run], *, forks: Sequence[Seq] = (), copies=(), restores=()
    ) -> None:
        """Plan, run, and append each sampled token to its sequence."""
        plan = replace(self.plan(runs, forks=forks, copies=copies), restores=restores)
        result = self.runner.collect(self.runner.launch(plan))
        sampled = [run.seq for run in runs if run.rows == run.seq.pending] + list(forks)
        for run in runs:
            run.seq.computed += run.rows
        for i, (seq, token) in enumerate(zip(sampled, result.tokens.tolist(), strict=True)):
            seq.tokens.append(token)
            if i in result.logprobs:
                seq.logprobs.append(result.logprobs[i])

    def finish(self, seqs: Sequence[Seq], new: int) -> list[list[int]]:
        """Step all sequences, prompts whole, until each has generated `new` tokens."""
        while running := [s for s in seqs if len(s.generated) < new]:
            self.step([Run(s, s.pending) for s in running])
        return [s.generated for s in seqs]

    def _pieces(self, run: Run) -> list[tuple[Seq, int, int]]:
        first, last = run.seq.computed, run.seq.computed + run.rows
        if not run.split:
            return [(run.seq, first, last)]
        return [(run.seq, p, p + 1) for p in range(first, last)]

    def _reserve(self, seq: Seq, tokens: int) -> None:
        while len(seq.table) * self.block_size < tokens:
            seq.table.append(self.free.pop())


def _ints(values) -> np.ndarray:
    return np.asarray(values, np.int32)
