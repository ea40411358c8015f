"""Everything replaced, one process after the other, under load: what do clients lose?

    python -m benchmarks.rollout --streams 200
    python -m benchmarks.rollout --streams 200 --redis
    python -m benchmarks.rollout --streams 200 --drain-s 1

Two gateways over three workers, and so many clients that stream all the time and come back with
`Last-Event-ID` where a connection breaks. Each process gets SIGTERM, ends when what runs there has
ended or its time to drain is over, and is started anew; gateways first. `--drain-s` makes that time
short, so that streams must go on elsewhere. The engines' own counts say what was computed twice.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cluster import Cluster, Process, Size, cluster, phase
from benchmarks.following import Client
from benchmarks.resume import Bench, said

_ENDS_WITHIN_S = 60.0


async def roll(bench: Bench, made: Cluster, seconds: dict[str, float]) -> None:
    """Replace all of them, one after the other."""
    await asyncio.sleep(2)
    for port, gateway in zip(made.ports, made.gateways, strict=True):
        await replaced(bench, gateway, seconds)
        await made.fronts_all(port)
    for worker in made.workers:
        await replaced(bench, worker, seconds)
        await made.ready()
    await asyncio.sleep(1)


async def replaced(bench: Bench, one: Process, seconds: dict[str, float]) -> None:
    """End one as an orchestrator does, and start it anew."""
    begun = time.monotonic()
    bench.when.append(begun)
    code = await one.end(_ENDS_WITHIN_S)
    took = time.monotonic() - begun
    seconds["longest_end_s"] = max(seconds["longest_end_s"], took)
    seconds["exit_codes_not_0"] += code != 0
    one.start()


async def run(bench: Bench, streams: int) -> dict[str, float]:
    """Roll under so many streams, and let the last ones come to their ends."""
    seconds = {"longest_end_s": 0.0, "exit_codes_not_0": 0.0}
    async with cluster(bench.size, bench.folder) as made:
        await bench.control(made)
        over = asyncio.Event()

        async def one() -> None:
            client = Client(made.ports, bench.tally)
            while not over.is_set():
                await bench.stream(client, random.choice(list(bench.sorts)))

        readers = [asyncio.create_task(one()) for _ in range(streams)]
        try:
            await roll(bench, made, seconds)
        finally:
            over.set()
            await asyncio.gather(*readers)
        phases = [await phase(port) for port in made.ports]
        if not all('"ready"' in each for each in phases):
            raise RuntimeError(f"not ready after it all: {phases}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--drain-s", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    random.seed(given.seed)
    drain = ("--drain-timeout-s", str(given.drain_s))
    size = Size(
        gateways=2, workers=3, gateway_flags=drain, redis=given.redis,
        worker_flags=("--max-running", "32", *drain),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench("rollout", 5, size, Path(folder))
        begun = time.monotonic()
        seconds = asyncio.run(run(bench, given.streams))
        for trouble in (bench.tally.wrong, bench.tally.failed):
            print(*trouble[:9], sep="\n", file=sys.stderr)
        where = "with Redis" if given.redis else "without Redis"
        print(f"seed {given.seed}, {where}, {time.monotonic() - begun:.0f} s")
        for name, value in {**said(bench), **seconds}.items():
            print(f"{name:32s} {value:12.1f}")


if __name__ == "__main__":
    main()
