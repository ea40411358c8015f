"""Whether one key can tell by time what another has said, on the bundled model.

    python -m benchmarks.isolation [--probes 300] [--seed N]

Two workers, a router that follows their caches, host and disk tiers. The owner says prompts of some
200 tokens with secrets in them. The thief says each of them once, and as often a fresh prompt of as
many tokens, in random order; then the servers end, come back with what the disk has, and the thief
tries the rest. A two-sample Kolmogorov-Smirnov test compares its times to the first token. That the
probe would see a difference is shown by the owner, whose own prompts are compared with fresh ones,
and by the smallest shift of all the thief's times that the test would have called one.
"""

import argparse
import asyncio
import math
import random
import secrets
import statistics
import tempfile
import urllib.request
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.client import stream
from engines.text.tokenizer import Tokenizer
from tests.support.command import MODEL, Served, served
from tests.support.live import TOKENIZER_DIR
from tests.support.tenants import key_file

OWNER, THIEF = "sk-0", "sk-1"
_WORDS = ("river", "stone", "lamp", "green", "seven", "winter", "paper", "glass")
_SIGNIFICANT = 0.01
_OWN = 40  # prompts by which the owner shows what a hit looks like
_FLAGS = (
    "--replicas=2", "--max-context=1024", "--kv-cache-memory=32MiB", "--kv-host-memory=32MiB",
    "--kv-disk-bytes=3GiB", "--log-level=warning", "--metrics-public",
)  # fmt: skip


def smirnov(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The largest distance of two empirical distributions, and how likely equal ones are so far.

    Asymptotic, after Stephens (1970), as in Numerical Recipes, third edition, 14.3.3.
    """
    ones, others = sorted(one), sorted(other)
    distance = max(
        abs(bisect_right(ones, x) / len(ones) - bisect_right(others, x) / len(others))
        for x in (*ones, *others)
    )
    root = math.sqrt(len(ones) * len(others) / (len(ones) + len(others)))
    return distance, kolmogorov((root + 0.12 + 0.11 / root) * distance)


def kolmogorov(x: float) -> float:
    """The probability that a variable of Kolmogorov's distribution exceeds `x`."""
    if x < 0.2:
        return 1.0
    terms = (2 * (-1) ** (j - 1) * math.exp(-2 * (j * x) ** 2) for j in range(1, 101))
    return min(1.0, max(0.0, math.fsum(terms)))


def smallest_shift_seen(one: Sequence[float], other: Sequence[float]) -> float:
    """By how much `one` would have to be less for the test to call it another distribution."""
    shift = 0.0
    while smirnov([x - shift for x in one], other)[1] > _SIGNIFICANT:
        shift += 0.05
    return shift


class Prompts:
    """Texts with secrets: words and numbers that are drawn, and as many tokens as one wants."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._tokenizer = Tokenizer.from_directory(TOKENIZER_DIR)

    def draw(self, tokens: int = 200) -> str:
        """A text of so many tokens."""
        rng, words = self._rng, list[str]()
        while self._count(words) < tokens - 20:
            words += [f"{rng.getrandbits(32):08x}", *rng.choices(_WORDS, k=9)]
        while self._count(words) > tokens:
            words.pop()
        while self._count(words) < tokens:
            words.append("a")
        return self.draw(tokens) if self._count(words) != tokens else " ".join(words)

    def shuffled(self, pairs: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """In an order that nothing follows from."""
        return self._rng.sample(pairs, len(pairs))

    def _count(self, words: Sequence[str]) -> int:
        return len(self._tokenizer.encode(" ".join(words), special=False))


async def say(server: Served, key: str, text: str) -> tuple[float, int]:
    """Milliseconds to the first token, and how many of the prompt were cached."""
    body: dict[str, object] = {
        "model": MODEL, "max_tokens": 2, "min_tokens": 2, "temperature": 0,
        "messages": [{"role": "user", "content": text}],
    }  # fmt: skip
    told = await stream(server.url, body, key)
    return told.first * 1e3, told.cached


def hits(server: Served) -> float:
    """Prompt tokens that both workers have found cached so far, for whomever."""
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("penstock_prefix_hit_tokens_t")
    )


async def compare(
    server: Served, key: str, known: Sequence[str], prompts: Prompts
) -> tuple[list[float], list[float], int]:
    """Times of a key with prompts that were said and with fresh ones; and what it was told."""
    tries = [(text, True) for text in known] + [(prompts.draw(), False) for _ in known]
    times: dict[bool, list[float]] = {True: [], False: []}
    cached = 0
    for text, said in prompts.shuffled(tries):
        took, found = await say(server, key, text)
        times[said].append(took)
        cached += found
    return times[True], times[False], cached


async def steal(server: Served, known: Sequence[str], prompts: Prompts) -> dict[str, float]:
    """The thief's probes of one phase."""
    before = hits(server)
    said, fresh, cached = await compare(server, THIEF, known, prompts)
    distance, likely = smirnov(said, fresh)
    return {
        "probes": len(said),
        "cached_tokens_told": cached,
        "cached_tokens_counted": hits(server) - before,
        "said_ms_p50": statistics.median(said),
        "fresh_ms_p50": statistics.median(fresh),
        "ks_distance": distance,
        "ks_p": likely,
        "smallest_shift_seen_ms": smallest_shift_seen(said, fresh),
    }


async def own(server: Served, known: Sequence[str], prompts: Prompts) -> dict[str, float]:
    """What the owner finds: the power of the probe."""
    said, fresh, cached = await compare(server, OWNER, known, prompts)
    distance, likely = smirnov(said, fresh)
    return {
        "probes": len(said),
        "cached_tokens_told": cached,
        "said_ms_p50": statistics.median(said),
        "fresh_ms_p50": statistics.median(fresh),
        "ks_distance": distance,
        "ks_p": likely,
    }


@contextmanager
def phase(folder: Path, keys: Path) -> Iterator[Served]:
    """The server's life on a folder; it ends gracefully, as the manifest wants it."""
    with served(*_FLAGS, f"--kv-disk-dir={folder}", f"--api-key-file={keys}") as server:
        yield server
        server.stop()


def measure(count: int, seed: int) -> dict[str, dict[str, float]]:
    """All phases, by name."""
    prompts, found = Prompts(seed), dict[str, dict[str, float]]()
    live, kept = ([prompts.draw() for _ in range(count)] for _ in range(2))
    with tempfile.TemporaryDirectory(prefix="penstock-isolation-") as name:
        folder = Path(name)
        keys = key_file(folder, count=2)
        with phase(folder / "kv", keys) as server:
            for text in (*kept, *live):
                asyncio.run(say(server, OWNER, text))
            found["thief, servers up"] = asyncio.run(steal(server, live, prompts))
            found["owner, servers up"] = asyncio.run(own(server, live[-_OWN:], prompts))
        with phase(folder / "kv", keys) as server:
            found["thief, after a restart"] = asyncio.run(steal(server, kept, prompts))
            found["owner, after a restart"] = asyncio.run(own(server, live[-_OWN:], prompts))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--probes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    for name, figures in measure(options.probes, seed).items():
        print(name)
        for figure, value in figures.items():
            print(f"  {figure:24s} {value:.3g}")


if __name__ == "__main__":
    main()
