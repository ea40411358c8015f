"""Engines for tests: a stepped engine over any runner, and small conveniences to read streams."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from engines.api import (
    Capability,
    EngineInfo,
    Finish,
    GenerationRequest,
    RequestId,
    Sampling,
    TokenStream,
)
from engines.grammar.compiler import GrammarCompiler
from engines.ledger import LedgerRunner
from engines.limits import Limits
from engines.step import StepPlan, StepResult, StepRunner
from engines.stepped import SteppedEngine
from engines.tiers.keeper import Keeper

VOCAB = 500


class Gated:
    """A runner that steps only as often as it is let: "still running" is then a fact."""

    def __init__(self, inner: StepRunner, steps: int = 0) -> None:
        self._inner = inner
        self._allowed = threading.Semaphore(steps)
        self._open = threading.Event()
        self.waiting = threading.Event()  # a step stands at the gate

    def allow(self, steps: int = 1) -> None:
        """Let so many more steps through."""
        self.waiting.clear()
        self._allowed.release(steps)

    def open(self) -> None:
        """Let all steps through from now on."""
        self._open.set()
        self._allowed.release()

    def launch(self, plan: StepPlan) -> object:
        if not self._open.is_set():
            self.waiting.set()
            if not self._allowed.acquire(timeout=30):
                raise TimeoutError("the test never opened the gate")
        return self._inner.launch(plan)

    def collect(self, ticket: object) -> StepResult:
        return self._inner.collect(ticket)

    def close(self) -> None:
        self._inner.close()


def limits_for(**changes: int) -> Limits:
    """Small limits with room for a few sequences; any field can be changed."""
    sizes = {
        "max_context": 128,
        "max_running": 8,
        "tokens_per_step": 64,
        "block_size": 4,
        "num_blocks": 200,
        "vocab_size": VOCAB,
    }
    return Limits(**{**sizes, **changes})


def ledger(limits: Limits, grammars: GrammarCompiler | None = None) -> LedgerRunner:
    """The ledger runner for these limits."""
    return LedgerRunner(
        limits.num_blocks, limits.block_size, vocab_size=limits.vocab_size, grammars=grammars
    )


def stepped(
    limits: Limits,
    runner: Callable[[Limits], StepRunner] = ledger,
    capabilities: frozenset[Capability] = frozenset({Capability.SAMPLING}),
    grammars: GrammarCompiler | None = None,
    keeper: Keeper | None = None,
) -> SteppedEngine:
    """A stepped engine, not started."""
    info = EngineInfo(
        model="test",
        max_context=limits.max_context,
        vocab_size=limits.vocab_size,
        block_size=limits.block_size,
        num_blocks=limits.num_blocks,
        max_running=limits.max_running,
        capabilities=capabilities,
    )
    return SteppedEngine(info, limits, runner(limits), grammars=grammars, keeper=keeper)


@asynccontextmanager
async def running(engine: SteppedEngine) -> AsyncIterator[SteppedEngine]:
    """The engine started, and stopped at the end."""
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(grace_s=0)


def ask(name: str, prompt: list[int], *, n: int = 1, **sampling: object) -> GenerationRequest:
    """A greedy request with up to 16 tokens, unless said otherwise."""
    values = {"max_tokens": 16, "temperature": 0.0, **sampling}
    return GenerationRequest(RequestId(name), tuple(prompt), Sampling(**values), n)


@dataclass
class Answer:
    """All that a stream said of one choice."""

    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    cached: int = 0
    events: int = 0
    logprobs: list = field(default_factory=list)
    prompt_logprobs: list | None = None


async def read(stream: TokenStream) -> dict[int, Answer]:
    """Read a stream to its end: answers by choice. Nothing may follow a finish."""
    answers: dict[int, Answer] = {}
    async for event in stream:
        answer = answers.setdefault(event.choice, Answer())
        assert answer.finish is None, "an event after the finish"
        answer.tokens += event.tokens
        answer.logprobs += event.logprobs or []
        if event.prompt_logprobs is not None:
            assert answer.events == 0, "prompt log-probabilities after the first event"
            answer.prompt_logprobs = list(event.prompt_logprobs)
        answer.finish = event.finish
        answer.cached = event.cached
        answer.events += 1
    return answers
