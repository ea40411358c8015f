"""Conversations below shared system prompts, over `penstock serve`: what routing by prefix gains.

    python -m benchmarks.multi_turn [--repeats 3] [--conversations 32] [--policies prefix ...]

The torch engine with the bundled model. Each of TENANTS has an API key and a system prompt of about
480 tokens, which all of its conversations begin with; there are more conversations of some than of
others. CLIENTS hold them, one after another, in 4 to 8 turns: each repeats all that was said, asks
something of about 35 tokens, and reads an answer of 24; then it thinks, 4 s in the mean, so that
many conversations lie between two turns of one. The same ones for every policy, in turn.

Three workers have BLOCKS of cache each, so that all of them together hold what is talked about
just now and none of them does. `one-cache` is what no routing can exceed: one worker with all
three's cache. Cached is the engines' own count, of every prompt token, those that nobody could have
had included; times are the clients'.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate

from benchmarks.client import events, percentile
from benchmarks.serving import served

WORKERS = 3
BLOCKS = 160  # of each worker, of 32 tokens
BLOCK_BYTES = 245_760  # 6 layers, 5 heads of 32, keys and values, float32
TENANTS = (4, 3, 2, 2, 1, 1)  # how many conversations of each, beside the others
CLIENTS = 18
THINK_S = 4.0
TURNS = (4, 8)
SYSTEM_WORDS, ASKED_WORDS, ANSWERED_TOKENS = 420, 30, 24
ONE_CACHE = "one-cache"
POLICIES = ("prefix", "round-robin", ONE_CACHE)
_TEXT = (
    "a river and the lamp were green when seven small stones fell into old water near that gate"
    " so we asked why birds sing at night or if snow could be warm in the garden of her friend"
)
_WORDS = _TEXT.split()


@dataclass
class Figures:
    """What one run came to."""

    first_s: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    requests: list[int] = field(default_factory=list)  # of each worker

    @property
    def hit_rate(self) -> float:
        return self.cached_tokens / self.prompt_tokens

    def told(self) -> dict[str, float]:
        """Those that are printed."""
        return {
            "hit_rate": self.hit_rate,
            "ttft_ms_p50": percentile(self.first_s, 0.5) * 1e3,
            "ttft_ms_p99": percentile(self.first_s, 0.99) * 1e3,
            "busiest_to_mean": max(self.requests) * len(self.requests) / sum(self.requests),
        }


def words(chance: random.Random, count: int) -> str:
    """Text that no other seed gives."""
    return " ".join(chance.choice(_WORDS) for _ in range(count))


def tenant_of(number: int) -> int:
    """Whose a conversation is: the shares are kept at each length."""
    ends = list(accumulate(TENANTS))
    place = number * 7 % ends[-1]  # 7 has no factor in common with 13
    return next(tenant for tenant, end in enumerate(ends) if place < end)


async def talk(url: str, number: int, figures: Figures) -> None:
    """One conversation."""
    tenant, own = tenant_of(number), random.Random(1000 + number)
    system = words(random.Random(tenant), SYSTEM_WORDS)
    messages = [{"role": "system", "content": system}]
    for turn in range(own.randint(*TURNS)):
        if turn:
            await asyncio.sleep(own.uniform(0.5, 1.5) * THINK_S)
        asked = words(own, own.randint(ASKED_WORDS // 2, ASKED_WORDS * 3 // 2))
        messages.append({"role": "user", "content": asked})
        answer = await ask(url, messages, f"sk-tenant-{tenant}", figures)
        messages.append({"role": "assistant", "content": answer})


async def ask(url: str, messages: list[dict[str, str]], key: str, figures: Figures) -> str:
    """One turn: its answer."""
    body: dict[str, object] = {
        "model": "penstock-tiny", "messages": messages, "temperature": 0,
        "max_tokens": ANSWERED_TOKENS, "min_tokens": ANSWERED_TOKENS,
    }  # fmt: skip
    said, begun = "", time.perf_counter()
    async for chunk in events(url, body, key):
        for choice in chunk["choices"]:
            text = choice["delta"].get("content") or ""
            if text and not said:
                figures.first_s.append(time.perf_counter() - begun)
            said += text
    return said


async def hold(url: str, conversations: int, figures: Figures) -> None:
    """All conversations, by clients who do not begin together."""
    waiting = list(reversed(range(conversations)))

    async def client(number: int) -> None:
        await asyncio.sleep(number * THINK_S / CLIENTS)
        while waiting:
            await talk(url, waiting.pop(), figures)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


def counted(url: str) -> Mapping[str, float]:
    """The samples of /metrics, by name and labels."""
    request = urllib.request.Request(  # noqa: S310
        url.replace("/v1", "/metrics"), headers={"authorization": "Bearer sk-tenant-0"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    found = (re.fullmatch(r"(penstock\S+) (\S+)", line) for line in lines)
    return {one[1]: float(one[2]) for one in found if one}


@contextmanager
def server(policy: str) -> Iterator[str]:
    """A server with this policy; its URL, once every worker is up and has computed something."""
    workers = 1 if policy == ONE_CACHE else WORKERS
    flags = [
        f"--replicas={workers}",
        f"--kv-cache-memory={BLOCKS * WORKERS // workers * BLOCK_BYTES}",
    ]
    if policy != ONE_CACHE:
        flags.append(f"--routing={policy}")
    flags += [f"--api-key=sk-tenant-{tenant}" for tenant in range(len(TENANTS))]
    with served(*flags) as made:
        deadline = time.monotonic() + 60
        while (held := counted(made.base_url)["penstock_kv_blocks_total"]) != BLOCKS * WORKERS:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the workers have {held:.0f} blocks of {BLOCKS * WORKERS}")
            time.sleep(0.1)
        yield made.base_url


async def warmed(url: str) -> None:
    """First steps are slower: short requests that share nothing, until each worker had some."""
    for number in range(4):
        short = [{"role": "user", "content": words(random.Random(-1 - each - 20 * number), 60)}
                 for each in range(2 * WORKERS)]  # fmt: skip
        await asyncio.gather(*(ask(url, [one], "sk-tenant-0", Figures()) for one in short))


def run(policy: str, conversations: int) -> Figures:
    """A server of its own, from cold caches on."""
    figures = Figures()
    with server(policy) as url:
        asyncio.run(warmed(url))
        before = counted(url)
        asyncio.run(hold(url, conversations, figures))
        after = counted(url)
    new = {name: value - before.get(name, 0.0) for name, value in after.items()}
    figures.prompt_tokens = int(new["penstock_prefix_query_tokens_total"])
    figures.cached_tokens = int(new["penstock_prefix_hit_tokens_total"])
    figures.requests = [
        int(count)
        for name, count in new.items()
        if name.startswith("penstock_worker_requests_total")
    ]
    if sum(figures.requests) != len(figures.first_s):
        raise RuntimeError(f"{figures.requests} requests for {len(figures.first_s)} turns")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--conversations", type=int, default=32)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    options = parser.parse_args()
    runs: dict[str, list[Figures]] = {policy: [] for policy in options.policies}
    for _ in range(options.repeats):
        for policy, done in runs.items():
            done.append(run(policy, options.conversations))
            row = {name: round(value, 3) for name, value in done[-1].told().items()}
            told = {"policy": policy, "turns": len(done[-1].first_s), **row}
            print(json.dumps({**told, "requests": done[-1].requests}), flush=True)
    medians = {
        policy: {
            name: round(statistics.median(one.told()[name] for one in done), 3)
            for name in done[0].told()
        }
        for policy, done in runs.items()
    }
    print(json.dumps({"medians": medians, "ratios": ratios(medians)}, indent=2))


def ratios(medians: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What `prefix` is to the others, of those that have run."""
    found: dict[str, float] = {}
    if {"prefix", ONE_CACHE} <= medians.keys():
        found["hit_rate_to_one_cache"] = (
            medians["prefix"]["hit_rate"] / medians[ONE_CACHE]["hit_rate"]
        )
    if {"prefix", "round-robin"} <= medians.keys():
        found["ttft_p50_to_round_robin"] = (
            medians["prefix"]["ttft_ms_p50"] / medians["round-robin"]["ttft_ms_p50"]
        )
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
