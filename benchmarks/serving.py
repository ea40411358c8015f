"""A whole `penstock serve` under load over HTTP: tokens/s, TTFT, inter-token latency, memory.

    python -m benchmarks.serving [--repeats 5]

The bundled model, default settings, one process on 127.0.0.1, by the scenarios of benchmarks.load:
every request has its own prompt of 128 tokens and asks for exactly 128 tokens, greedy.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import load
from benchmarks.client import free_port
from benchmarks.scenarios import SCENARIOS, words_of
from benchmarks.watch import cpu_seconds, memory_mib

LEVELS = {1: "a", 16: "b16", 64: "b64"}
TOKENS = 128
MODEL = "penstock-tiny"
TOKENIZER = Path(__file__).parents[1] / "engines" / "bundled" / "penstock_tiny" / "tokenizer.json"
_TOLD = {
    "tokens_per_s": "tok_s",
    "ttft_ms_p50": "ttft_p50_ms",
    "ttft_ms_p99": "ttft_p99_ms",
    "inter_token_ms_p50": "itl_p50_ms",
    "inter_token_ms_p99": "itl_p99_ms",
}


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
            "model": MODEL,
            "messages": [{"role": "user", "content": f"{salt}-{number}: {story}"}],
            "max_tokens": TOKENS,
            "min_tokens": TOKENS,
            "temperature": 0,
        }
        for number in range(count)
    ]


def measure(repeats: int = 5) -> dict[str, float]:
    """Start a server, load it at each level, and say what it cost."""
    with served() as server:
        figures = {"start_to_ready_s": server.start_s}
        pid = server.process.pid
        target = asyncio.run(
            load.calibrate(server.base_url, MODEL, words_of(TOKENIZER))
        )  # and warm up
        figures["rss_mib_idle"], _ = memory_mib(pid)
        for count, name in LEVELS.items():
            runs = [load.measure(target, SCENARIOS[name], repeat, pid) for repeat in range(repeats)]
            told = load.medians(runs)
            figures |= {f"{key}_{count}": told[figure] for key, figure in _TOLD.items()}
        figures["rss_mib_after_load"], _ = memory_mib(pid)
        used = cpu_seconds(pid)
        time.sleep(3)
        figures["idle_cpu_percent_of_a_core"] = (cpu_seconds(pid) - used) / 3 * 100
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    for name, value in measure(parser.parse_args().repeats).items():
        print(f"{name:40s} {value:9.2f}")


if __name__ == "__main__":
    main()
