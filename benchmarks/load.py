"""A load generator for any OpenAI-compatible server: paired scenarios, over HTTP, streamed.

    python -m benchmarks.load --base-url http://127.0.0.1:8000/v1 --model NAME
        --tokenizer DIRECTORY/tokenizer.json [--pid SERVER] [--repeats 5] [a b16 b64 c d p]

Tokens are those of the server's own usage, and a run of which any answer has other than the tokens
that were asked for is refused. With the server's process its processor time and memory are told,
and a run is repeated while other programs took more than 8 % of the machine.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.client import Stream, percentile, stream
from benchmarks.scenarios import SCENARIOS, Ask, Scenario, prompts, words_of
from benchmarks.watch import Cost, wait_quiet, watched

QUIET = 0.08  # share of the machine that others may have
TRIES = 3
OF_PROCESSES = {"cpu_s", "rss_mib", "pss_mib", "others", "tries"}  # what a pid is needed for


class WrongCountsError(Exception):
    """A server answered, and not what was asked: there is no figure."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and what is known of how it counts."""

    base_url: str
    model: str
    words: Sequence[str]
    api_key: str = ""
    template_tokens: int = 0
    ignores_eos: bool = True  # it knows that field

    def body(self, text: str, tokens: int) -> dict[str, object]:
        """A request of exactly so many tokens."""
        told: dict[str, object] = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
        }
        return {**told, "ignore_eos": True} if self.ignores_eos else told

    async def ask(self, text: str, tokens: int) -> Stream:
        """The answer to it, timed."""
        return await stream(self.base_url, self.body(text, tokens), self.api_key)


async def calibrate(base_url: str, model: str, words: Sequence[str], api_key: str = "") -> Target:
    """Learn by two requests which fields a server knows, and what its template adds."""
    for ignores in (True, False):
        target = Target(base_url, model, words, api_key, ignores_eos=ignores)
        try:
            told = [await target.ask(" ".join(words[:count]), 2) for count in (10, 60)]
        except ConnectionError:
            if not ignores:
                raise
            continue
        added = [one.prompt_tokens - count for one, count in zip(told, (10, 60), strict=True)]
        if added[0] != added[1]:
            raise WrongCountsError(f"50 words are {50 + added[1] - added[0]} tokens here")
        return Target(base_url, model, words, api_key, added[0], ignores)
    raise AssertionError


async def play(target: Target, scenario: Scenario, repeat: int) -> list[Stream]:
    """One run of a scenario: its streams, in the order of its requests."""
    texts = prompts(scenario, repeat, target.words, target.template_tokens)
    room = asyncio.Semaphore(scenario.at_once)

    async def one(ask: Ask, text: str) -> Stream:
        if ask.at_s is not None:
            await asyncio.sleep(ask.at_s)
            return await target.ask(text, ask.output)
        async with room:
            return await target.ask(text, ask.output)

    each = zip(scenario.asks, texts, strict=True)
    return list(await asyncio.gather(*(one(ask, text) for ask, text in each)))


def check(scenario: Scenario, streams: Sequence[Stream]) -> None:
    """Refuse a run that did other work than what was asked."""
    for ask, one in zip(scenario.asks, streams, strict=True):
        if (one.prompt_tokens, one.tokens) != (ask.prompt, ask.output):
            raise WrongCountsError(
                f"{scenario.name}: asked for {ask.prompt} + {ask.output} tokens,"
                f" got {one.prompt_tokens} + {one.tokens}"
            )
        if not one.first:
            raise WrongCountsError(f"{scenario.name}: an answer without text")
    beside = [one for ask, one in zip(scenario.asks, streams, strict=True) if ask.at_s is not None]
    others = [one for ask, one in zip(scenario.asks, streams, strict=True) if ask.at_s is None]
    for late in beside:
        if late.sent > min(one.sent + one.last for one in others):
            raise WrongCountsError(f"{scenario.name}: a chat had ended when the prompt came")


def figures(scenario: Scenario, streams: Sequence[Stream], cost: Cost) -> dict[str, float]:
    """What a run is told as: times in ms, of the requests that are not sent beside the others."""
    pairs = list(zip(scenario.asks, streams, strict=True))
    main = [one for ask, one in pairs if ask.at_s is None]
    gaps = [gap for one in main for gap in one.gaps] or [0.0]  # all came in one piece
    firsts = [one.first for one in main]
    begun = min(one.sent for one in streams)
    ended = max(one.sent + one.ended for one in streams)
    told = {
        "tok_s": sum(one.tokens for one in streams) / (ended - begun),
        "ttft_p50_ms": percentile(firsts, 0.5) * 1e3,
        "ttft_p99_ms": percentile(firsts, 0.99) * 1e3,
        "itl_p50_ms": percentile(gaps, 0.5) * 1e3,
        "itl_p99_ms": percentile(gaps, 0.99) * 1e3,
        "itl_max_ms": max(gaps) * 1e3,
        "tpot_ms": statistics.median((one.last - one.first) / (one.tokens - 1) for one in main)
        * 1e3,
        "cached_tokens": sum(one.cached for one in streams),
        "cpu_s": cost.cpu_s,
        "rss_mib": cost.rss_mib,
        "pss_mib": cost.pss_mib,
        "client_cpu_s": cost.client_cpu_s,
        "others": cost.others,
    }
    beside = [one.first for ask, one in pairs if ask.at_s is not None]
    return told | ({"long_ttft_ms": max(beside) * 1e3} if beside else {})


def measure(
    target: Target, scenario: Scenario, repeat: int, pid: int | None = None, quiet: float = QUIET
) -> dict[str, float]:
    """A run that others did not disturb, or the least disturbed of some; `tries` says how many."""
    best: dict[str, float] = {}
    for attempt in range(TRIES):
        wait_quiet(quiet, at_most_s=15)
        with watched(pid) as cost:
            # Prompts that no earlier attempt has left in a cache.
            streams = asyncio.run(play(target, scenario, repeat * TRIES + attempt))
        check(scenario, streams)
        told = figures(scenario, streams, cost) | {"tries": attempt + 1}
        if pid is None:  # what the server took and what others did cannot be told apart
            return {name: value for name, value in told.items() if name not in OF_PROCESSES}
        if not best or told["others"] < best["others"]:
            best = told
        if told["others"] <= quiet:
            break
    return best


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each figure over runs."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--api-key", default="")
    parser.add_argument("--pid", type=int, help="the server's first process")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output-tokens", type=int, help="another length of the answers")
    parser.add_argument("--json", type=Path, help="where to write every run")
    parser.add_argument("scenario", nargs="*", default=["a", "b16", "c", "d"])
    given = parser.parse_args()
    words = words_of(given.tokenizer)
    target = asyncio.run(calibrate(given.base_url, given.model, words, given.api_key))
    every = {}
    for name in given.scenario:
        scenario = SCENARIOS[name]
        if given.output_tokens:
            scenario = scenario.told(output=given.output_tokens)
        runs = [measure(target, scenario, one, given.pid) for one in range(given.repeats)]
        every[name] = {"scenario": asdict(scenario), "runs": runs}
        line = "  ".join(f"{key} {value:.4g}" for key, value in medians(runs).items())
        print(f"{name}: {line}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    sys.exit(main())
