"""Tokens a second with drafts and without, on text that repeats and on text that does not.

    python -m benchmarks.speculation [--repeats 5] [--dtype float32]

The bundled model in this process, without HTTP: greedy, where its text soon repeats, and seeded at
temperature 1, where it does not. And the ledger, which computes nothing: what is left there is the
host's own work. With and without in turn; medians. That both say the same tokens is checked.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from engines.api import Engine, EngineInfo, EngineLoad, GenerationRequest, RequestId, Sampling
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


@dataclass(frozen=True)
class Case:
    """What is asked of which engine."""

    name: str
    sampling: Sampling
    opens: Callable[[int], tuple[Engine, tuple[int, ...]]]  # drafts -> engine, prompt


def _torch(dtype: str, drafts: int) -> tuple[Engine, tuple[int, ...]]:
    settings = Settings(dtype=dtype, speculate=drafts, step_target_s=0.0)
    loaded = load_engine(settings, lambda _: None, lambda _: None)
    return loaded.engine, tuple(loaded.text.tokenizer.encode(PROMPT, special=True))


def _ledger(said: int, drafts: int) -> tuple[Engine, tuple[int, ...]]:
    limits = Limits(1024, 16, 512, 32, 512, VOCAB, draft_tokens=drafts)
    runner = LedgerRunner(512, 32, vocab_size=VOCAB, first=VOCAB - said)
    info = EngineInfo("ledger", 1024, VOCAB, 32, 512, 16)
    return SteppedEngine(info, limits, runner), tuple(range(100))


async def _run(case: Case, drafts: int, streams: int) -> tuple[float, list[list[int]], EngineLoad]:
    """Tokens a second, the tokens, and what the engine counted."""
    engine, prompt = case.opens(drafts)
    await engine.start()
    await _answers(engine, case.sampling, prompt, 1)  # the first steps are slow
    begun = time.perf_counter()
    said = await _answers(engine, case.sampling, prompt, streams)
    took_s = time.perf_counter() - begun
    load = engine.load()
    await engine.stop(0)
    return sum(map(len, said)) / took_s, said, load


async def _answers(
    engine: Engine, sampling: Sampling, prompt: tuple[int, ...], streams: int
) -> list[list[int]]:
    async def answer(number: int) -> list[int]:
        own = (prompt[0], number + 3, *prompt[2:])
        request = GenerationRequest(RequestId(f"{streams}-{number}"), own, sampling)
        return [token async for event in engine.generate(request) for token in event.tokens]

    return list(await asyncio.gather(*map(answer, range(streams))))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    greedy, seeded = Sampling(TOKENS, temperature=0.0), Sampling(TOKENS, temperature=1.0, seed=1)
    cases = (
        Case("torch, repeats", greedy, lambda drafts: _torch(options.dtype, drafts)),
        Case("torch, does not", seeded, lambda drafts: _torch(options.dtype, drafts)),
        Case("ledger, repeats", greedy, lambda drafts: _ledger(1, drafts)),
        Case("ledger, does not", seeded, lambda drafts: _ledger(VOCAB, drafts)),
    )
    print("case              streams   without      with  ratio  accepted of drafted")
    for case in cases:
        for streams in STREAMS:
            _compare(case, streams, options.repeats)


def _compare(case: Case, streams: int, repeats: int) -> None:
    rates: dict[int, list[float]] = {0: [], DRAFTS: []}
    for _ in range(repeats):
        said = {}
        for drafts, found in rates.items():
            rate, said[drafts], load = asyncio.run(_run(case, drafts, streams))
            found.append(rate)
        if said[0] != said[DRAFTS]:
            print(f"{case.name}: the tokens differ")
    without, with_ = (statistics.median(found) for found in rates.values())
    told = f"{load.accepted_tokens} of {load.drafted_tokens}"
    ratio = with_ / without
    print(f"{case.name:18s} {streams:6d} {without:9.0f} {with_:9.0f} {ratio:6.2f}  {told}")


if __name__ == "__main__":
    main()
