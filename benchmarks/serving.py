"""A whole `penstock serve` under load over HTTP: tokens/s, TTFT, inter-token latency, memory.

    python -m benchmarks.serving [--repeats 5]

The bundled model, default settings, one process on 127.0.0.1. Every request has its own prompt of
about 130 tokens and asks for exactly 128 tokens (`min_tokens`), greedy.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from benchmarks.client import free_port, percentile, together

LEVELS = (1, 16, 64)
TOKENS = 128


@dataclass
class Server:
    """A running server, and what its start took."""

    base_url: str
    process: psutil.Process
    start_s: float


@contextlib.contextmanager
def served(*flags: str) -> Iterator[Server]:
    """`penstock serve` on a free port, until the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port), *flags]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_ready(f"http://127.0.0.1:{port}/readyz", process)
        taken = time.perf_counter() - begun
        yield Server(f"http://127.0.0.1:{port}/v1", psutil.Process(process.pid), taken)
    finally:
        process.terminate()
        process.wait(60)


def _wait_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310
            return
        time.sleep(0.05)
    raise TimeoutError("the server did not become ready in 60 s")


def bodies(count: int, salt: int) -> list[dict[str, object]]:
    """Requests that share no prefix beyond the template's."""
    story = "Tell me a story about a river, a lamp and a small gate. " * 8
    return [
        {
            "model": "penstock-tiny",
            "messages": [{"role": "user", "content": f"{salt}-{number}: {story}"}],
            "max_tokens": TOKENS,
            "min_tokens": TOKENS,
            "temperature": 0,
        }
        for number in range(count)
    ]


async def level(server: Server, count: int, repeats: int) -> dict[str, float]:
    """Medians over repeats at one level of concurrency."""
    rates, firsts, gaps = [], [], []
    for repeat in range(repeats):
        streams, wall = await together(server.base_url, bodies(count, repeat * 1000 + count))
        rates.append(sum(one.tokens for one in streams) / wall)
        firsts += [one.first for one in streams]
        gaps += [gap for one in streams for gap in one.gaps]
    return {
        f"tokens_per_s_{count}": statistics.median(rates),
        f"ttft_ms_p50_{count}": percentile(firsts, 0.5) * 1e3,
        f"ttft_ms_p99_{count}": percentile(firsts, 0.99) * 1e3,
        f"inter_token_ms_p50_{count}": percentile(gaps, 0.5) * 1e3,
        f"inter_token_ms_p99_{count}": percentile(gaps, 0.99) * 1e3,
    }


def measure(repeats: int = 5) -> dict[str, float]:
    """Start a server, load it at each level, and say what it cost."""
    with served() as server:
        figures = {"start_to_ready_s": server.start_s}
        asyncio.run(together(server.base_url, bodies(2, 999_999)))  # warm up
        figures["rss_mib_idle"] = server.process.memory_info().rss / 2**20
        for count in LEVELS:
            figures |= asyncio.run(level(server, count, repeats))
        figures["rss_mib_after_load"] = server.process.memory_info().rss / 2**20
        before = server.process.cpu_times()
        time.sleep(3)
        after = server.process.cpu_times()
        idle = after.user + after.system - before.user - before.system
        figures["idle_cpu_percent_of_a_core"] = idle / 3 * 100
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    for name, value in measure(parser.parse_args().repeats).items():
        print(f"{name:40s} {value:9.2f}")


if __name__ == "__main__":
    main()
