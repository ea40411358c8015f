"""What grammars cost: masks in a step, compiling, and hostile ones beside other people's streams.

    python -m benchmarks.grammar [--seconds 25]

Everything runs on the bundled model in this process, but for the checker's child. A hostile grammar
goes the way a request's does: checked first, and generated from where it passes.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import numpy as np
import psutil
from tokenizers import Tokenizer, decoders, models

from benchmarks.client import percentile
from engines.api import Capability, EngineInfo, GenerationRequest, RequestId, Sampling
from engines.bundled import penstock_tiny
from engines.errors import EngineError
from engines.grammar.checker import GrammarChecker
from engines.grammar.compiler import GrammarCompiler, compiled
from engines.grammar.vocabulary import read_vocabulary
from engines.guides.lanes import LaneGuides
from engines.limits import Limits
from engines.scheduler import Scheduler
from engines.stepped import SteppedEngine
from engines.torch import sampler as sampling
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from kvcache.pool import BlockPool

SEQUENCES = 32
STEPS = 150
BLOCKS, BLOCK = 1200, 16
ROUNDS = 5
PLAIN = 8  # streams that somebody else reads
TOKENIZER = penstock_tiny() / "tokenizer.json"
PROMPT = (1, *range(300, 320))


def schema(number: int) -> dict[str, object]:
    """A typical schema of an answer; each number gives another."""
    return {
        "type": "object",
        "properties": {
            f"name_{number}": {"type": "string"},
            "kind": {"enum": ["alpha", "beta", f"gamma {number}"]},
            "count": {"type": "integer", "minimum": 0, "maximum": 100 + number},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
            "place": {
                "type": "object",
                "properties": {"x": {"type": "number"}, "on": {"type": "string", "format": "date"}},
                "required": ["x", "on"],
                "additionalProperties": False,
            },
        },
        "required": [f"name_{number}", "kind", "count", "tags", "place"],
        "additionalProperties": False,
    }


def source(described: object) -> str:
    return json.dumps({"grammars": [{"json_schema": described}]})


class Clock:
    """Adds up the time spent in functions it was put around."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def around(self, function: Callable[..., object]) -> Callable[..., object]:
        def timed(*args: object) -> object:
            begun = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.spent_s += time.perf_counter() - begun

        return timed


@contextlib.contextmanager
def timed_guides(clock: Clock) -> Iterator[None]:
    """Everything that a step does for guides: masks, putting them on, going on, forced tokens."""
    places = [(LaneGuides, name) for name in ("masks", "banned", "advance")]
    places.append((sampling, "_masked"))
    real = [getattr(owner, name) for owner, name in places]
    for (owner, name), function in zip(places, real, strict=True):
        setattr(owner, name, clock.around(function))
    yield
    for (owner, name), function in zip(places, real, strict=True):
        setattr(owner, name, function)


def masks_in_a_step() -> dict[str, float]:
    """The share of a step that 32 guided sequences at temperature 1 add to it."""
    loaded = open_model(penstock_tiny(), device="cpu")
    facts = loaded.facts
    text = TOKENIZER.read_text(encoding="utf-8")
    grammars = GrammarCompiler(read_vocabulary(text, facts.vocab_size, facts.eos_ids))
    grammar = source({"type": "array", "items": schema(0), "minItems": 99})
    held = grammars.compile(grammar).result()
    limits = Limits(1024, SEQUENCES, 512, BLOCK, BLOCKS, facts.vocab_size)
    scheduler = Scheduler(limits, BlockPool(BLOCKS, BLOCK))
    runner = TorchRunner(
        loaded, num_blocks=BLOCKS, block_size=BLOCK, max_lanes=SEQUENCES, grammars=grammars
    )
    for number in range(SEQUENCES):
        asked = Sampling(900, seed=number, grammar=held.source)
        scheduler.add(GenerationRequest(RequestId(str(number)), (*PROMPT, number), asked))
    clock, shares, steps = Clock(), [], []
    with timed_guides(clock):
        for _ in range(STEPS):
            before, begun = clock.spent_s, time.perf_counter()
            plan = scheduler.plan()
            result = runner.collect(runner.launch(plan))
            scheduler.apply(plan, result)
            steps.append(time.perf_counter() - begun)
            shares.append((clock.spent_s - before) / steps[-1])
    grammars.close()
    return {
        "grammar_step_ms_32": statistics.median(steps) * 1e3,
        "grammar_percent_of_step_32": statistics.median(shares) * 100,
    }


def large_vocabulary() -> dict[str, float]:
    """One mask over 128,000 tokens, along sampled answers: what a large model's step would add."""
    known = Tokenizer.from_file(str(TOKENIZER)).get_vocab()
    pieces = [piece for piece in known if not piece.startswith("<")]
    wide = dict.fromkeys([*pieces, *(a + b for a, b in itertools.product(pieces[256:], pieces))])
    words = {word: place for place, word in enumerate(itertools.islice(wide, 128_000))}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    vocabulary = read_vocabulary(tokenizer.to_str(), 128_000, {0})
    prototype = compiled(source(schema(0)), vocabulary)
    random, times = np.random.default_rng(0), []
    for _ in range(30):
        matcher, row = prototype.deep_copy(), np.zeros(4000, np.int32)
        for _ in range(60):
            begun = time.perf_counter()
            matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
            times.append(time.perf_counter() - begun)
            left = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
            if matcher.is_stopped() or not matcher.consume_token(int(random.choice(left))):
                break
            matcher.consume_tokens(matcher.compute_ff_tokens())
    return {
        "mask_us_p50_128k": statistics.median(times) * 1e6,
        "mask_us_p99_128k": percentile(times, 0.99) * 1e6,
    }


def compile_times(count: int = 300) -> dict[str, float]:
    """Compiling distinct schemas, one after another."""
    vocabulary = read_vocabulary(TOKENIZER.read_text(encoding="utf-8"), 2560, {0, 2})
    times = []
    for number in range(count):
        text = source(schema(number))
        begun = time.perf_counter()
        compiled(text, vocabulary)
        times.append(time.perf_counter() - begun)
    return {
        "schema_compile_ms_p50": statistics.median(times) * 1e3,
        "schema_compile_ms_p99": percentile(times, 0.99) * 1e3,
    }


@asynccontextmanager
async def engine() -> AsyncIterator[SteppedEngine]:
    """The bundled model, started, with everything a request may ask."""
    loaded = open_model(penstock_tiny(), device="cpu")
    facts = loaded.facts
    text = TOKENIZER.read_text(encoding="utf-8")
    grammars = GrammarCompiler(read_vocabulary(text, facts.vocab_size, facts.eos_ids))
    limits = Limits(2048, SEQUENCES, 512, BLOCK, BLOCKS, facts.vocab_size)
    info = EngineInfo("tiny", 2048, facts.vocab_size, BLOCK, BLOCKS, 32, frozenset(Capability))
    runner = TorchRunner(
        loaded, num_blocks=BLOCKS, block_size=BLOCK, max_lanes=SEQUENCES, grammars=grammars
    )
    served = SteppedEngine(info, limits, runner, grammars=grammars)
    await served.start()
    try:
        yield served
    finally:
        await served.stop(grace_s=0)


async def watch(served: SteppedEngine, seconds: float) -> list[float]:
    """Gaps between the events of the plain streams, in seconds, for so long."""
    gaps: list[float] = []
    until = time.perf_counter() + seconds

    async def follow(number: int) -> None:
        for turn in itertools.count():
            name = RequestId(f"plain-{number}-{turn}")
            asked = Sampling(1500, temperature=0.0)
            stream = served.generate(GenerationRequest(name, (*PROMPT, number), asked))
            last = 0.0
            async for _ in stream:
                now = time.perf_counter()
                if last:
                    gaps.append(now - last)
                last = now
                if now > until:
                    await stream.aclose()
                    return

    await asyncio.gather(*(follow(number) for number in range(PLAIN)))
    return gaps


async def attack(served: SteppedEngine, checker: GrammarChecker, sources: Iterator[str]) -> None:
    """Four clients send one grammar after another, for ever."""

    async def client(place: int) -> None:
        for turn, text in enumerate(sources):
            with contextlib.suppress(EngineError):
                await checker.check(text)
                asked = Sampling(16, seed=turn, grammar=text)
                name = RequestId(f"hostile-{place}-{turn}")
                async for _ in served.generate(GenerationRequest(name, PROMPT, asked)):
                    pass
            await asyncio.sleep(0)

    await asyncio.gather(*(client(place) for place in range(4)))


def _parens() -> Iterator[str]:
    """Made with little work, since the sender shares this process with what it disturbs."""
    deep, close = "(" * 30_000, ")" * 30_000
    for number in itertools.count():
        yield f'start: "{number}" {deep}"a"{close}'
        yield f"start: /{number}{deep}a{close}/"


def _repetitions() -> Iterator[str]:
    return (f"start: /{number}(a+)+$/" for number in itertools.count())


def _schemas() -> Iterator[str]:
    return (source(schema(number)) for number in itertools.cycle(range(10_000)))


async def interference(seconds: float) -> dict[str, float]:
    """Plain streams undisturbed, and beside each kind of sender: medians over rounds, in turn.

    What a hostile sender adds is told against an honest one, who takes as many lanes and turns.
    """
    honest = itertools.repeat(source(schema(0)))
    kinds = {"alone": None, "honest": honest, "parens": _parens(),
             "repetitions": _repetitions(), "schemas": _schemas()}  # fmt: skip
    found: dict[str, list[float]] = {}
    process = psutil.Process()
    async with engine() as served:
        checker = GrammarChecker(TOKENIZER, 2560, [0, 2])
        await watch(served, 2)
        for _ in range(ROUNDS):
            for name, sources in kinds.items():
                before = process.memory_info().rss
                gaps = await _beside(served, checker, sources, seconds / ROUNDS)
                figures = {
                    f"inter_token_ms_p50_{name}": statistics.median(gaps) * 1e3,
                    f"inter_token_ms_p99_{name}": percentile(gaps, 0.99) * 1e3,
                    f"rss_grown_mib_{name}": (process.memory_info().rss - before) / 2**20,
                }
                for figure, value in figures.items():
                    found.setdefault(figure, []).append(value)
        await checker.close()
    medians = {figure: statistics.median(values) for figure, values in found.items()}
    for name in ("parens", "repetitions", "schemas"):
        own = found[f"inter_token_ms_p99_{name}"]
        pairs = zip(own, found["inter_token_ms_p99_honest"], strict=True)
        medians[f"p99_{name}_over_honest"] = statistics.median(a / b for a, b in pairs)
        medians[f"rss_grown_mib_{name}_last_round"] = found[f"rss_grown_mib_{name}"][-1]
    return medians


async def _beside(
    served: SteppedEngine, checker: GrammarChecker, sources: Iterator[str] | None, seconds: float
) -> list[float]:
    if sources is None:
        return await watch(served, seconds)
    sending = asyncio.create_task(attack(served, checker, sources))
    gaps = await watch(served, seconds)
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sending
    return gaps


def measure(seconds: float = 10) -> dict[str, float]:
    """All of it; about a minute and a half."""
    return {
        **masks_in_a_step(),
        **large_vocabulary(),
        **compile_times(),
        **asyncio.run(interference(seconds)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=25)
    for name, value in measure(parser.parse_args().seconds).items():
        print(f"{name:40s} {value:9.2f}")


if __name__ == "__main__":
    main()
