"""Replicas that die as the test says: over real engines, and over streams written by hand."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from engines.api import Capability, EngineInfo, EngineLoad, Finish, FinishReason, TokenEvent
from engines.errors import EngineDied, EngineUnavailable
from engines.replicas import ReplicaSet
from engines.stepped import SteppedEngine
from tests.support.engines import Answer, ledger, limits_for
from tests.support.grammars import compiler

GUIDED = frozenset({Capability.SAMPLING, Capability.GUIDES, Capability.GRAMMAR})


class Dying:
    """A runner that fails at step `at`, or when a prompt with the token `poison` gets so far.

    So far: when its position `reached` is computed (its first by default).
    """

    def __init__(self, inner, at=None, *, poison=None, reached=0):
        self._inner = inner
        self._at = at
        self._poison = poison
        self._reached = reached
        self._poisoned = set()
        self.steps = 0

    def launch(self, plan):
        self.steps += 1
        if self.steps == self._at or self._meets(plan):
            raise RuntimeError("the device fell off the bus")
        return self._inner.launch(plan)

    def collect(self, ticket):
        return self._inner.collect(ticket)

    def close(self):
        self._inner.close()

    def _meets(self, plan):
        for start in plan.starts:
            self._poisoned -= {start.lane}
            if self._poison in start.prompt:
                self._poisoned.add(start.lane)
        segments = zip(plan.segment_lanes, plan.past, plan.row_starts[1:] - plan.row_starts[:-1],
                       strict=True)  # fmt: skip
        return any(
            lane in self._poisoned and past <= self._reached < past + rows
            for lane, past, rows in segments
        )


def ledger_engine(wrap=lambda runner: runner, on_death=None, **limits):
    """A ledger that takes guides and grammars, over a runner that `wrap` may spoil."""
    sizes = limits_for(**limits)
    grammars = compiler(sizes.vocab_size)
    info = EngineInfo(
        "test", sizes.max_context, sizes.vocab_size, sizes.block_size, sizes.num_blocks,
        sizes.max_running, GUIDED,
    )  # fmt: skip
    runner = wrap(ledger(sizes, grammars))
    return SteppedEngine(info, sizes, runner, grammars=grammars, on_death=on_death)


class Fleet:
    """A set of engines by name; with `restarts`, whoever dies comes back, as a supervisor does."""

    def __init__(self, make: Callable, replicas: ReplicaSet, *, restarts: bool):
        self.replicas = replicas
        self.deaths = []
        self._make = make  # (name, how often it has died before, on_death) -> engine
        self._restarts = restarts
        self._all = []
        self._tasks = set()

    async def begin(self, name, life=0):
        """Start a life of a replica."""
        engine = self._make(name, life, lambda _: self._died(name, life))
        self._all.append(engine)
        await engine.start()
        if name in self.replicas.engines:
            self.replicas.remove(name)
        self.replicas.add(name, engine, engine)

    async def end(self):
        """Stop whatever was ever started."""
        await asyncio.gather(*self._tasks)
        for engine in self._all:
            await engine.stop(grace_s=0)

    def _died(self, name, life):
        self.deaths.append((name, life))
        if self._restarts:
            task = asyncio.ensure_future(self.begin(name, life + 1))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def fleet(make, names, *, restarts=False, **options):
    """These replicas, started; stopped at the end, with nothing left open."""
    own = Fleet(make, ReplicaSet(**options), restarts=restarts)
    try:
        for name in names:
            await own.begin(name)
        yield own
    finally:
        await own.end()


async def read_until(stream, ends=None):
    """Answers by choice, as `tests.support.engines.read`; a choice is ended once it has so many."""
    answers, ends = {}, dict(ends or {})
    for choice in [choice for choice, count in ends.items() if count == 0]:
        stream.end_choice(choice)
    async for event in stream:
        answer = answers.setdefault(event.choice, Answer())
        assert answer.finish is None, "an event after the finish"
        assert event.choice not in ends or len(answer.tokens) < ends[event.choice], "after its end"
        assert event.prompt_logprobs is None or answer.events == 0
        answer.tokens += event.tokens
        answer.logprobs += event.logprobs or []
        if event.prompt_logprobs is not None:
            answer.prompt_logprobs = list(event.prompt_logprobs)
        answer.finish = event.finish
        answer.events += 1
        if len(answer.tokens) >= ends.get(event.choice, 1 << 30) and event.finish is None:
            stream.end_choice(event.choice)
    return answers


# -- by hand


@dataclass(frozen=True)
class Fate:
    """What one stream of a replica does: so many events of `chunk` tokens, then `then`.

    `then`: "lives" (to the end), "dies", "leaves" (is stopped), or the name of a lie.
    """

    events: int = 0
    then: str = "lives"
    chunk: int = 1


def voice(request, choice):
    """All that is ever said of a choice: a stop token may end it before its length does."""
    sampling = request.sampling
    said = []
    for place in range(sampling.max_tokens):
        said.append(hash((request.prompt, sampling.seed, choice, place)) % 50)
        if said[-1] in sampling.stop_tokens:
            return said, Finish(FinishReason.STOP, len(said), said[-1])
    return said, Finish(FinishReason.LENGTH, len(said))


class HandStream:
    """Tells what `voice` says from where the request stands, as far as its fate lets it."""

    def __init__(self, engine, request, fate):
        self._engine = engine
        self._fate = fate
        self._left = fate.events
        self.request = request
        self.closed = False
        self._rest = {}
        for choice in request.choices:
            said, end = voice(request, choice)
            self._rest[choice] = (said[len(request.logs[choice]) :], end)
        self._turns = deque(self._rest)

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if self.closed or not self._turns:
            raise StopAsyncIteration
        if self._fate.then != "lives" and self._left == 0:
            return self._end()
        self._left -= 1
        return self._event()

    def end_choice(self, choice):
        if choice in self._turns:
            self._turns.remove(choice)

    async def aclose(self):
        self.closed = True
        self._turns.clear()

    def _event(self):
        choice = self._turns.popleft()
        tokens, end = self._rest[choice]
        now, later = tokens[: self._fate.chunk], tokens[self._fate.chunk :]
        self._rest[choice] = (later, end)
        if later:
            self._turns.append(choice)
        vector = [float(now[0])] if self.request.pooled else None
        return TokenEvent(choice, now, 0, finish=None if later else end, vector=vector)

    def _end(self):
        choice, ended = self._turns[0], set(range(self.request.n)) - set(self._turns)
        self._turns.clear()
        match self._fate.then:
            case "dies":
                self._engine.alive = False
                raise EngineDied("gone")
            case "leaves":
                raise EngineUnavailable("stopping")
            case "falls silent":
                self.closed = True
                raise StopAsyncIteration
            case "unknown choice":
                return TokenEvent(7, [1], 0)
            case "after the finish":
                return TokenEvent(min(ended, default=9), [1], 0)
            case "too many":
                return TokenEvent(choice, [1] * (self.request.sampling.max_tokens + 1), 0)
            case "no such token":
                return TokenEvent(choice, [1 << 20], 0)
            case "wrong count":
                return TokenEvent(choice, [], 0, finish=Finish(FinishReason.LENGTH, 999))
            case "no vector":
                return TokenEvent(choice, [1], 0, finish=Finish(FinishReason.LENGTH, 1))
        raise AssertionError(self._fate.then)


LIES = (
    "falls silent", "unknown choice", "after the finish", "too many", "no such token",
    "wrong count", "no vector",
)  # fmt: skip


class HandEngine:
    """Hands out HandStreams with fates from a common list; the last is for ever."""

    def __init__(self, fates):
        self._fates = fates
        self.alive = True
        self.streams = []
        self.info = EngineInfo("hand", 1024, 500, 16, 64, 8)

    async def start(self):
        return

    def generate(self, request):
        if not self.alive:
            raise EngineDied("gone")
        fate = self._fates.popleft() if self._fates else Fate()
        self.streams.append(HandStream(self, request, fate))
        return self.streams[-1]

    def load(self):
        running = sum(len(stream._turns) for stream in self.streams)
        return EngineLoad(running, 0, 0, 0, 64, alive=self.alive)

    async def stop(self, _grace_s):
        self.alive = False
