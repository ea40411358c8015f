"""Tokens a second with drafts and without, on text that repeats and on text that does not.

    python -m benchmarks.speculation [--repeats 5] [--engine torch] [--dtype float32]

The bundled model in this process, without HTTP: greedy, where its text soon repeats, and seeded at
temperature 1, where it does not. And the ledger, which computes nothing: what is left there is the
host's own work. Two engines, one with drafts, in turn, after one round of the same; medians. That
both say the same tokens is checked.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable

from engines.api import (
    Capability,
    Engine,
    EngineInfo,
    EngineLoad,
    GenerationRequest,
    RequestId,
    Sampling,
)
from engines.ledger import LedgerRunner
from engines.limits import Limits
from engines.stepped import SteppedEngine
from gateway.opening import load_engine
from gateway.settings import Settings

DRAFTS = 7
TOKENS = 200
STREAMS = (1, 2, 4, 8)
VOCAB = 8000
PROMPT = "The river runs to the gate, and the gate opens to the river. " * 6

Opens = Callable[[int], tuple[Engine, tuple[int, ...]]]  # drafts -> an engine, and a prompt


def _model(engine: str, dtype: str, drafts: int) -> tuple[Engine, tuple[int, ...]]:
    settings = Settings(engine=engine, dtype=dtype, speculate=drafts)
    loaded = load_engine(settings, lambda _: None, lambda _: None)
    return loaded.engine, tuple(loaded.text.tokenizer.encode(PROMPT, special=True))


def _ledger(said: int, drafts: int) -> tuple[Engine, tuple[int, ...]]:
    limits = Limits(1024, 16, 512, 32, 512, VOCAB, draft_tokens=drafts)
    runner = LedgerRunner(512, 32, vocab_size=VOCAB, first=VOCAB - said)
    info = EngineInfo("ledger", 1024, VOCAB, 32, 512, 16, frozenset({Capability.SAMPLING}))
    return SteppedEngine(info, limits, runner), tuple(range(100))


async def _answers(
    engine: Engine, sampling: Sampling, prompt: tuple[int, ...], streams: int
) -> tuple[float, list[list[int]]]:
    """Tokens a second, and the tokens."""

    async def answer(number: int) -> list[int]:
        own = (prompt[0], number + 3, *prompt[2:])
        request = GenerationRequest(RequestId(str(number)), own, sampling)
        return [token async for event in engine.generate(request) for token in event.tokens]

    begun = time.perf_counter()
    said = list(await asyncio.gather(*map(answer, range(streams))))
    return sum(map(len, said)) / (time.perf_counter() - begun), said


async def _compare(name: str, opens: Opens, sampling: Sampling, repeats: int) -> None:
    opened = [opens(drafts) for drafts in (0, DRAFTS)]
    for engine, _ in opened:
        await engine.start()
    for streams in STREAMS:
        rates: list[list[float]] = [[], []]
        before = opened[1][0].load()
        for turn in range(repeats + 1):
            said = []
            for (engine, prompt), found in zip(opened, rates, strict=True):
                rate, tokens = await _answers(engine, sampling, prompt, streams)
                said.append(tokens)
                if turn:
                    found.append(rate)
            if said[0] != said[1]:
                print(f"{name}: the tokens differ")
        _tell(f"{name:18s} {streams:6d}", rates, before, opened[1][0].load())
    for engine, _ in opened:
        await engine.stop(0)


def _tell(what: str, rates: list[list[float]], before: EngineLoad, after: EngineLoad) -> None:
    without, with_ = map(statistics.median, rates)
    accepted = after.accepted_tokens - before.accepted_tokens
    drafted = after.drafted_tokens - before.drafted_tokens
    ratio = with_ / without
    print(f"{what} {without:9.0f} {with_:9.0f} {ratio:6.2f}  {accepted} of {drafted}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engine", default="torch", choices=("torch", "openvino"))
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    greedy, seeded = Sampling(TOKENS, temperature=0.0), Sampling(TOKENS, temperature=1.0, seed=1)
    cases: tuple[tuple[str, Opens, Sampling], ...] = (
        ("model, repeats", lambda drafts: _model(options.engine, options.dtype, drafts), greedy),
        ("model, does not", lambda drafts: _model(options.engine, options.dtype, drafts), seeded),
        ("ledger, repeats", lambda drafts: _ledger(1, drafts), greedy),
        ("ledger, does not", lambda drafts: _ledger(VOCAB, drafts), seeded),
    )
    print("text              streams   without      with  ratio  accepted of drafted")
    for name, opens, sampling in cases:
        asyncio.run(_compare(name, opens, sampling, options.repeats))


if __name__ == "__main__":
    main()
