"""What this machine can do at all: how fast it reads memory, and how fast it multiplies.

    python -m benchmarks.compare.floors [--mib 200] [--dtype bfloat16]

Each figure is the best of many short timings in a second, begun when others are quiet, if they ever
are: the best of many is what a disturbed machine shows now and then, too.
A server's step is held against the least time that its weights and its arithmetic need by these.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.compare.models import Shape
from benchmarks.load import QUIET
from benchmarks.watch import wait_quiet

ROWS = (1, 16, 64, 256, 2048)
SIDE = 2048  # of the square weight that rows are multiplied by
_WINDOW_S = 1.0


def best_s(work: Callable[[], object]) -> float:
    """The shortest of many runs, once others are quiet."""
    work()
    wait_quiet(QUIET, at_most_s=5)
    best, ends = float("inf"), time.perf_counter() + _WINDOW_S
    while (begun := time.perf_counter()) < ends:
        work()
        best = min(best, time.perf_counter() - begun)
    return best


def measure(threads: int, mib: int, dtype: str) -> dict[str, float]:
    """GB/s of reading so many MiB again and again, and GFLOP/s by the number of rows."""
    import torch  # noqa: PLC0415 - it is told the threads in a process of its own

    torch.set_num_threads(threads)
    kind = getattr(torch, dtype)
    told = {}
    with torch.inference_mode():
        data = torch.ones(mib << 18, dtype=torch.float32)
        whole = data.view(torch.int64)
        reads = (data.sum, lambda: torch.dot(data, data), whole.sum, data.max)
        least = min(best_s(read) for read in reads)
        told["read_gb_s"] = data.numel() * 4 / least / 1e9
        weight = torch.randn(SIDE, SIDE).to(kind)
        for rows in ROWS:
            left = torch.randn(rows, SIDE).to(kind)
            taken = best_s(lambda left=left: torch.nn.functional.linear(left, weight))
            told[f"gemm_{rows}_gflop_s"] = 2 * rows * SIDE * SIDE / taken / 1e9
    return told


def floors(mib: int, dtype: str, threads: int) -> dict[str, dict[str, float]]:
    """Of one thread and of all, each in a process of its own."""
    told = {}
    for count in sorted({1, threads}):
        command = [sys.executable, "-m", "benchmarks.compare.floors", "--inside", str(count)]
        command += ["--mib", str(mib), "--dtype", dtype]
        told[str(count)] = json.loads(subprocess.check_output(command, text=True))
    return told


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time of a piece of work on this machine, and which of the two it is."""

    ms: float
    by: str  # memory or arithmetic


def bound(
    shape: Shape, floor: Mapping[str, float], rows: int, context: int, width: int = 2
) -> Bound:
    """Of a step that computes so many rows, each behind `context` tokens of its own."""
    read = shape.parameters * width + rows * context * shape.kv_bytes(width)
    memory = read / floor["read_gb_s"] / 1e6
    measured = [count for count in ROWS if count <= rows]
    rate = floor[f"gemm_{max(measured)}_gflop_s"]
    arithmetic = rows * shape.flops(context) / rate / 1e6
    if rows == 1 or memory >= arithmetic:  # one row is a matter of memory alone
        return Bound(memory, "memory")
    return Bound(arithmetic, "arithmetic")


def prefill_bound(shape: Shape, floor: Mapping[str, float], tokens: int) -> Bound:
    """Of a prompt, whose head is computed for its last token alone."""
    head = 2 * shape.vocabulary * shape.hidden
    work = tokens * (shape.flops(tokens // 2) - head) + head
    return Bound(work / max(floor[f"gemm_{rows}_gflop_s"] for rows in ROWS) / 1e6, "arithmetic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(measure(given.inside, given.mib, given.dtype)))
        return
    for threads, told in floors(given.mib, given.dtype, given.threads).items():
        for name, value in told.items():
            print(f"{threads} threads  {name:20} {value:9.1f}")


if __name__ == "__main__":
    main()
