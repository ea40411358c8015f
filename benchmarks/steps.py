"""How long does a decode step take? Runners beside each other, in turns, at several batch sizes.

    python -m benchmarks.steps [--model S] [--model M] [--threads N] [--batches 1 16 64]
    python -m benchmarks.steps --changing        steps whose number of rows changes each time
    python -m benchmarks.steps --starts          how long a start takes, and its memory, too

Models are those of benchmarks.compare.models; every sequence has 128 tokens behind it. A step is
all of launch and collect, greedy sampling included. Runners take turns of a few steps each, so that
what else happens on the machine meets all of them; printed are the least and the median. Starts run
in processes of their own: the first lowers the model, the second finds it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.compare.models import SHAPES, write_model
from engines.api import Sampling
from engines.step import LaneStart, StepPlan, StepRunner

CONTEXT = 128
BLOCK = 32
ROUNDS = 12
TURN = 4  # steps of one runner before the next has its turn
WAYS = (
    ("torch", "float32"),
    ("openvino", "float32"),
    ("torch", "bfloat16"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("openvino", "int4"),
)


@dataclass(frozen=True)
class Opened:
    """A runner, and which way it computes."""

    name: str
    runner: StepRunner


def open_runner(
    way: tuple[str, str], path: Path, cache: Path, *, threads: int, lanes: int
) -> StepRunner:
    """A runner with room for the largest batch."""
    engine, dtype = way
    blocks = lanes * (CONTEXT // BLOCK + 2)
    if engine == "torch":
        from engines.torch.loading import open_model  # noqa: PLC0415
        from engines.torch.runner import TorchRunner  # noqa: PLC0415

        loaded = open_model(path, dtype=dtype, device="cpu", threads=threads)
        return TorchRunner(loaded, num_blocks=blocks, block_size=BLOCK, max_lanes=lanes)
    from engines.openvino.loading import open_model as open_graph  # noqa: PLC0415
    from engines.openvino.runner import OpenvinoRunner  # noqa: PLC0415

    graph = open_graph(path, dtype=dtype, cache=cache, threads=threads)
    return OpenvinoRunner(graph, num_blocks=blocks, max_lanes=lanes)


def decode(rows: int, step: int) -> StepPlan:
    """Every one of `rows` sequences decodes one token."""
    at = CONTEXT + step
    blocks = at // BLOCK + 1
    tables = np.arange(rows * blocks, dtype=np.int32)
    every = np.arange(rows, dtype=np.int32)
    greedy = Sampling(max_tokens=1 << 20, temperature=0.0)
    return StepPlan(
        tokens=every + 5,
        positions=np.full(rows, at, np.int32),
        write_slots=tables[blocks - 1 :: blocks] * BLOCK + at % BLOCK,
        row_starts=np.arange(rows + 1, dtype=np.int32),
        past=np.full(rows, at, np.int32),
        segment_lanes=every,
        tables=tables,
        table_starts=np.arange(rows + 1, dtype=np.int32) * blocks,
        sample_rows=every,
        sample_lanes=every,
        starts=[] if step else [LaneStart(int(lane), 0, greedy, (1,)) for lane in every],
    )


def timed(runner: StepRunner, rows: int) -> Callable[[int], float]:
    """Takes step number n, and says how many milliseconds it took."""

    def take(step: int) -> float:
        plan = decode(rows, step)
        began = time.perf_counter()
        runner.collect(runner.launch(plan))
        return (time.perf_counter() - began) * 1e3

    return take


def compare(shape: str, path: Path, cache: Path, threads: int, batches: list[int]) -> None:
    """Print a line for each batch size and runner."""
    lanes = max(batches)
    opened = [
        Opened(" ".join(way), open_runner(way, path, cache, threads=threads, lanes=lanes))
        for way in WAYS
    ]
    for rows in batches:
        times: dict[str, list[float]] = {each.name: [] for each in opened}
        takes = {each.name: timed(each.runner, rows) for each in opened}
        for take in takes.values():
            take(0)
            take(1)
        for turn in range(ROUNDS):
            for name, take in takes.items():
                times[name] += [take(2 + turn * TURN + n) for n in range(TURN)]
        for name, took in times.items():
            best, middle = min(took), median(took)
            print(
                f"{shape} batch {rows:3}  {name:18} {best:8.2f} ms least {middle:8.2f} ms median"
                f" {rows * 1e3 / best:9.0f} tok/s",
                flush=True,
            )


def changing(shape: str, path: Path, cache: Path, threads: int, batches: list[int]) -> None:
    """Print what a step takes alone, and in turn with one that has a row less."""
    for way in WAYS:
        runner = open_runner(way, path, cache, threads=threads, lanes=max(batches))
        for rows in batches:
            pair = [timed(runner, rows), timed(runner, max(rows - 1, 1))]
            alone = [median(take(step) for step in range(ROUNDS * TURN)) for take in pair]
            both = [[take(step) for take in pair] for step in range(ROUNDS * TURN)]
            in_turn = [median(each[place] for each in both) for place in range(2)]
            print(
                f"{shape} {' '.join(way):18} {rows:3} rows {alone[0]:7.2f} ms, a row less"
                f" {alone[1]:7.2f}; in turn {in_turn[0]:7.2f} and {in_turn[1]:7.2f}",
                flush=True,
            )


def start(engine: str, dtype: str, path: Path, cache: Path, threads: int) -> None:
    """In a process of its own: open, step once, and print what it took as JSON."""
    began = time.perf_counter()
    runner = open_runner((engine, dtype), path, cache, threads=threads, lanes=16)
    opened = time.perf_counter()
    runner.collect(runner.launch(decode(2, 0)))
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    told = {
        "open_s": round(opened - began, 2),
        "first_step_s": round(time.perf_counter() - opened, 3),
        "rss_mib": sizes["VmRSS"] >> 10,
        "anonymous_mib": sizes["RssAnon"] >> 10,
        "peak_mib": sizes["VmHWM"] >> 10,
    }
    print(json.dumps(told))


def starts(shape: str, path: Path, folder: Path, threads: int) -> None:
    """Print cold and warm starts of every way."""
    for engine, dtype in WAYS:
        cache = folder / f"graphs-{shape}-{dtype}"
        for which in ("cold", "warm"):
            given = [engine, dtype, str(path), str(cache), str(threads)]
            began = time.perf_counter()
            line = subprocess.check_output(
                [sys.executable, "-m", "benchmarks.steps", "--start", *given], text=True
            )
            whole = time.perf_counter() - began
            print(
                f"{shape} {which} {engine} {dtype}: {whole:.1f} s in all; {line.strip()}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=list(SHAPES))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--starts", action="store_true")
    parser.add_argument("--changing", action="store_true")
    parser.add_argument("--start", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        engine, dtype, path, cache, threads = arguments.start
        start(engine, dtype, Path(path), Path(cache), int(threads))
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        for shape in arguments.model or ["S", "M"]:
            path = write_model(shape, folder)
            if arguments.starts:
                starts(shape, path, folder, arguments.threads)
            else:
                show = changing if arguments.changing else compare
                show(shape, path, folder / "graphs", arguments.threads, arguments.batches)


if __name__ == "__main__":
    main()
