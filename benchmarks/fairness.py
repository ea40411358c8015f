"""Time to the first token of a light key beside a flood of another, over HTTP, on the ledger.

    python -m benchmarks.fairness [--visits 100]

A server of its own: 32 lanes, 256 tokens per step, and steps of 20 ms, since the ledger would
otherwise be as fast as the processor. The flood keeps five times as many streams in flight as there
are lanes, of 64 tokens each. The light key sends a prompt of about 400 tokens, reads 8 tokens, and
comes again; idle, beside the flood, and beside a flood of its own key, which is what a line that
knows no tenants does to everybody.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator

from benchmarks.client import percentile, stream
from gateway.setting_kinds import Secret
from tests.support.live import MODEL, live, test_settings

LIGHT, FLOOD = "sk-light", "sk-flood"
LANES, STEP_S, STEP_TOKENS, OVERLOAD = 32, 0.02, 256, 5
_PAUSE_S = 0.1
_NUMBERS = itertools.count()


def serve() -> None:
    """The server, in a process of its own, until its input ends."""
    settings = test_settings(
        api_key=(Secret(LIGHT), Secret(FLOOD)), max_running=LANES, max_step_tokens=STEP_TOKENS,
        max_queued_requests=1000,
    )  # fmt: skip
    with live(settings, step_s=STEP_S, blocks=4096) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def body(words: int, tokens: int) -> dict[str, object]:
    """A request whose prompt no other has begun with."""
    text = f"{next(_NUMBERS)} " + "a river and a lamp " * (words // 5)
    return {
        "model": MODEL, "max_tokens": tokens, "min_tokens": tokens, "temperature": 0,
        "messages": [{"role": "user", "content": text}],
    }  # fmt: skip


def light() -> dict[str, object]:
    """What the light key asks."""
    return body(400, 8)


async def visits(url: str, count: int) -> list[float]:
    """Milliseconds to the first token of visits, one after another."""
    times = []
    for _ in range(count):
        times.append((await stream(url, light(), LIGHT)).first * 1e3)
        await asyncio.sleep(_PAUSE_S)
    return times


@contextlib.asynccontextmanager
async def flood(url: str, key: str) -> AsyncIterator[list[int]]:
    """Streams without end while the block runs; the list grows by the tokens of each."""
    done: list[int] = []

    async def one() -> None:
        while True:
            done.append((await stream(url, body(20, 64), key)).tokens)

    tasks = [asyncio.create_task(one()) for _ in range(OVERLOAD * LANES)]
    await asyncio.sleep(3)  # until every lane is held and the line is long
    try:
        yield done
    finally:
        failed = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if failed:
            raise RuntimeError(f"{len(failed)} streams of the flood failed") from (
                failed[0].exception()
            )


def prompt_tokens(url: str) -> int:
    """Of a light request, by the server's own count."""
    request = urllib.request.Request(  # noqa: S310
        f"{url}/chat/completions",
        json.dumps(light()).encode(),
        {"authorization": f"Bearer {LIGHT}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return int(json.loads(response.read())["usage"]["prompt_tokens"])


async def measure(url: str, count: int) -> dict[str, float]:
    """The three medians and tails, and their ratios."""
    await visits(url, 5)  # warm up
    found = {"idle": await visits(url, count)}
    async with flood(url, FLOOD):
        found["beside_a_flood"] = await visits(url, count)
    await asyncio.sleep(1)
    async with flood(url, LIGHT):
        found["in_a_flood_of_its_own"] = await visits(url, max(5, count // 20))
    figures = {
        f"ttft_ms_{name}_p{round(share * 100)}": percentile(times, share)
        for name, times in found.items()
        for share in (0.5, 0.99)
    }
    tails = [figures[f"ttft_ms_{name}_p99"] for name in ("beside_a_flood", "idle")]
    return {**figures, "p99_ratio_of_flood_to_idle": tails[0] / tails[1]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--visits", type=int, default=100)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    command = [sys.executable, "-m", "benchmarks.fairness", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        print(f"{'light prompt, tokens':40s} {prompt_tokens(url):9d}")
        for name, value in asyncio.run(measure(url, options.visits)).items():
            print(f"{name:40s} {value:9.2f}")
        server.communicate()


if __name__ == "__main__":
    main()
