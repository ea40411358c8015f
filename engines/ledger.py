"""A deterministic runner without a model, whose text goes wrong with any mistake in block tables.

Its "KV slots" hold fingerprints: the slot of position i is a hash of token i, i and the slot of
position i - 1, so it stands for the whole prefix. Its next token is a hash of all slots of the
sequence, read *through the block table*. Sharing a wrong block, losing a copy, evicting too early,
skipping a row: each changes the text. `ledger_tokens` says what the text must be, from the tokens
alone.

It is the engine of the scheduler's tests and of load tests (`--engine ledger`). Every token of its
vocabulary is equally likely: a temperature above zero draws with noise keyed by (seed, choice,
position); temperature 0 or top_k 1 takes the hash itself; top_p and min_p cut nothing from a flat
distribution. Guides and grammars leave it fewer tokens to choose among, as they do any runner.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engines.api import Sampling
from engines.drafts import Drafts, drafts_of
from engines.guides.bits import Row, tokens_of
from engines.guides.lanes import Grammars, LaneGuides
from engines.step import BlockBytes, Int32Array, LaneStart, StepPlan, StepResult

VECTOR_SIZE = 16
_MASK = (1 << 64) - 1
_Word = npt.NDArray[np.uint64]


@dataclass(slots=True)
class _Lane:
    """What the sampler of one running sequence must know."""

    start: LaneStart
    generated: int


def _mix(word: int) -> int:
    """SplitMix64's finaliser (Steele et al., 2014): a bijection that scatters every bit."""
    word = (word + 0x9E3779B97F4A7C15) & _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


def _mix_words(words: _Word) -> _Word:
    """`_mix` of each element."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _fingerprint(token: int, position: int, before: int) -> int:
    return _mix(before ^ _mix(token * 0x10001 + position))


@dataclass(frozen=True, slots=True)
class _Voice:
    """What the ledger may say at all: the tokens from `first` to the end of the vocabulary."""

    first: int
    vocab_size: int

    def choose(self, state: int, lane: _Lane, row: Row | None, banned: Iterable[int]) -> int:
        """The token that follows a sequence whose slots hash to `state`.

        `row` is what a mask leaves, and wins over `first` and the bans where it leaves only those.
        """
        sampling = lane.start.sampling
        if sampling.temperature > 0 and sampling.top_k != 1:
            state = _mix(state ^ _mix(sampling.seed & _MASK) ^ lane.start.choice)
        avoided = set(banned)
        if lane.generated < sampling.min_tokens:
            avoided |= sampling.stop_tokens
        if row is not None or 2 * len(avoided) > self.vocab_size - self.first:
            return self._from_row(state, row, avoided)
        token = self.first + state % (self.vocab_size - self.first)
        while token in avoided:
            state = _mix(state)
            token = self.first + state % (self.vocab_size - self.first)
        return token

    def _from_row(self, state: int, row: Row | None, avoided: set[int]) -> int:
        left = np.arange(self.vocab_size) if row is None else tokens_of(row, self.vocab_size)
        said = left[(left >= self.first) & ~np.isin(left, list(avoided))]
        among = said if len(said) else left
        return int(among[state % len(among)])


def ledger_tokens(
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    vocab_size: int,
    choice: int = 0,
    first: int = 0,
    grammars: Grammars | None = None,
) -> list[int]:
    """All tokens that the ledger gives for a prompt, stop or length included: the oracle."""
    lane = _Lane(LaneStart(0, choice, sampling, prompt), 0)
    sampler = _Sampler(LaneGuides(vocab_size, grammars), _Voice(first, vocab_size))
    sampler.start(lane.start)
    log = list(prompt)
    before = state = 0
    for position in range(len(prompt) + sampling.max_tokens):
        if position == len(log):
            result = sampler.sample(np.zeros(1, np.int64), [state])
            log += [int(result.tokens[0]), *result.forced.get(0, ())]
            stopped = int(result.tokens[0]) in sampling.stop_tokens
            if stopped or len(log) >= len(prompt) + sampling.max_tokens:
                break
        before = _fingerprint(log[position], position, before)
        state = (state + _mix(before ^ position)) & _MASK
    return log[len(prompt) : len(prompt) + sampling.max_tokens]


def ledger_vector(prompt: Sequence[int]) -> list[float]:
    """The vector that the ledger gives for a prompt: the oracle of pooled requests."""
    before = state = 0
    for position, token in enumerate(prompt):
        before = _fingerprint(token, position, before)
        state = (state + _mix(before ^ position)) & _MASK
    return vector_of(state)


def vector_of(state: int) -> list[float]:
    """A direction of length 1 that stands for the hash of a sequence's slots."""
    raw = [_mix(state + place) / (_MASK >> 1) - 1 for place in range(VECTOR_SIZE)]
    length = math.sqrt(sum(value * value for value in raw))
    return [value / length for value in raw]


class _Sampler:
    """Chooses for lanes, and knows how far each is."""

    def __init__(self, guides: LaneGuides, voice: _Voice) -> None:
        self._guides = guides
        self._voice = voice
        self._lanes: dict[int, _Lane] = {}

    def start(self, start: LaneStart) -> None:
        """A sequence takes a lane."""
        self._lanes[start.lane] = _Lane(start, len(start.generated))
        self._guides.start(start)

    def sample(
        self, lanes: npt.NDArray[np.int64], states: list[int], drafts: Drafts | None = None
    ) -> StepResult:
        """One token for each lane from the hash of its slots, with what the guides make of it."""
        rows: dict[int, Row] = {}
        bans: dict[int, list[int]] = {}
        if (masks := self._guides.masks(lanes)) is not None:
            rows = dict(zip(masks.samples.tolist(), masks.rows, strict=True))
        for sample, token in zip(*(self._guides.banned(lanes) or ((), ())), strict=True):
            bans.setdefault(int(sample), []).append(int(token))
        tokens = np.zeros(len(lanes), np.int32)
        for sample, (number, state) in enumerate(zip(lanes.tolist(), states, strict=True)):
            lane = self._lanes[number]
            tokens[sample] = self._voice.choose(state, lane, rows.get(sample), bans.get(sample, ()))
            lane.generated += drafts is None
        if drafts is not None:
            for number in lanes[drafts.counted(tokens)].tolist():
                self._lanes[number].generated += 1
        steered = self._guides.advance(lanes, tokens)
        for sample, forced in steered.forced.items():
            self._lanes[int(lanes[sample])].generated += len(forced)
        return StepResult(tokens, forced=steered.forced, failed=steered.failed)

    def pooled(self, lane: int) -> bool:
        """Whether a lane wants a vector."""
        return self._lanes[lane].start.pooled

    def clear(self) -> None:
        """Forget all lanes."""
        self._lanes.clear()


class LedgerRunner:
    """A StepRunner. `first` is the lowest token it may say; `step_s` makes each step take time."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        vocab_size: int,
        first: int = 0,
        step_s: float = 0,
        grammars: Grammars | None = None,
    ) -> None:
        self._slots = np.zeros(num_blocks * block_size, np.uint64)
        self._block_size = block_size
        self._step_s = step_s
        guides = LaneGuides(vocab_size, grammars)
        self._sampler = _Sampler(guides, _Voice(first, vocab_size))

    @property
    def block_bytes(self) -> int:
        return self._block(0).nbytes

    def read_blocks(self, blocks: Sequence[int]) -> list[BlockBytes]:
        return [self._block(block).view(np.uint8).copy() for block in blocks]

    def launch(self, plan: StepPlan) -> StepResult:
        for start in plan.starts:
            self._sampler.start(start)
        saved = self.read_blocks(plan.saves)
        for source, target in plan.copies:
            self._block(target)[:] = self._block(source)
        for block, content in plan.restores:
            self._block(block)[:] = content.view(np.uint64)
        self._write(plan)
        states = self._read(plan)
        lanes = plan.sample_lanes.astype(np.int64)
        vectors = {
            index: vector_of(state)
            for index, (lane, state) in enumerate(zip(lanes.tolist(), states, strict=True))
            if self._sampler.pooled(lane)
        }
        return replace(
            self._sampler.sample(lanes, states, drafts_of(plan)), vectors=vectors, saved=saved
        )

    def collect(self, ticket: object) -> StepResult:
        if not isinstance(ticket, StepResult):
            raise TypeError(f"not a ticket of this runner: {type(ticket).__name__}")
        if self._step_s:
            time.sleep(self._step_s)
        return ticket

    def close(self) -> None:
        self._sampler.clear()

    def _block(self, block: int) -> _Word:
        return self._slots[block * self._block_size : (block + 1) * self._block_size]

    def _write(self, plan: StepPlan) -> None:
        """Fingerprints of all rows, in order: a row may follow one of the same step."""
        for segment in range(plan.segments):
            start = int(plan.past[segment])
            rows = slice(int(plan.row_starts[segment]), int(plan.row_starts[segment + 1]))
            before = int(self._slots[self._slot(plan, segment, start - 1)]) if start else 0
            slots, tokens = plan.write_slots[rows].tolist(), plan.tokens[rows].tolist()
            for position, (slot, token) in enumerate(zip(slots, tokens, strict=True), start):
                before = _fingerprint(token, position, before)
                self._slots[slot] = before

    def _read(self, plan: StepPlan) -> list[int]:
        """For each sample, the sum of its sequence's slots up to its row, each with its position.

        All of it is read, through the table: about 10 ns a slot.
        """
        segments = np.searchsorted(plan.row_starts, plan.sample_rows, side="right") - 1
        states: list[int] = []
        last = (-1, 0)
        for row, segment in zip(plan.sample_rows.tolist(), segments.tolist(), strict=True):
            if last[0] != row:  # siblings sample the same row
                length = int(plan.positions[row]) + 1
                last = (row, self._digest(plan, segment, length))
            states.append(last[1])
        return states

    def _digest(self, plan: StepPlan, segment: int, length: int) -> int:
        blocks = -(-length // self._block_size)
        at = int(plan.table_starts[segment])
        table = plan.tables[at : at + blocks].astype(np.int64)
        slots = self._slots.reshape(-1, self._block_size)[table].reshape(-1)[:length]
        positions = np.arange(length, dtype=np.uint64)
        return int(_mix_words(slots ^ positions).sum(dtype=np.uint64))

    def _slot(self, plan: StepPlan, segment: int, position: int) -> int:
        block, offset = divmod(position, self._block_size)
        return int(plan.tables[plan.table_starts[segment] + block]) * self._block_size + offset


def check_plan(plan: StepPlan) -> None:
    """Raise ValueError for a malformed plan: what any runner may rely on."""
    problems = {
        "a segment without rows": bool((np.diff(plan.row_starts) < 1).any()),
        "rows and row_starts disagree": plan.rows != (plan.row_starts[-1] if plan.segments else 0),
        "a slot written twice": len(np.unique(plan.write_slots)) != plan.rows,
        "a block copied to twice": len({to for _, to in plan.copies}) != len(plan.copies),
        "a block saved twice": len(set(plan.saves)) != len(plan.saves),
        "a block restored twice": len({to for to, _ in plan.restores}) != len(plan.restores),
        "a lane sampled twice": len(plan.sample_lanes) - plan.drafts
        != len(np.unique(plan.sample_lanes))
        or bool((plan.sample_lanes[1:] == plan.sample_lanes[:-1]).sum() != plan.drafts),
        "tables and table_starts disagree": len(plan.tables) != plan.table_starts[-1],
        "positions do not follow past": not np.array_equal(plan.positions, _positions(plan)),
    }
    for problem, found in problems.items():
        if found:
            raise ValueError(problem)


def _positions(plan: StepPlan) -> Int32Array:
    lengths = np.diff(plan.row_starts)
    starts = np.repeat(plan.past - plan.row_starts[:-1], lengths)
    return (starts + np.arange(plan.rows, dtype=np.int32)).astype(np.int32)
