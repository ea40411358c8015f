"""Gateways and workers killed, stopped and cut off under load: what do clients lose that come back?

    python -m benchmarks.resume --kill gateways --times 200
    python -m benchmarks.resume --kill workers --times 200
    python -m benchmarks.resume --kill both --times 50
    python -m benchmarks.resume --kill connections --times 200
    python -m benchmarks.resume --stop gateways --times 20
    python -m benchmarks.resume --stop workers --times 8

Workers of the ledger, and two gateways that front all of them. Clients stream all the time; again
and again something gets SIGKILL at a random moment and is started anew, or is stopped for a while,
or each connection is cut at every event. Whose connection breaks goes on with `Last-Event-ID` at
the other gateway. Each answer must equal that of the same request while nothing was killed, and
the engines' own counts say what was computed twice (counted_worker.py).
"""

import argparse
import asyncio
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos import requests
from benchmarks.client import percentile
from benchmarks.cluster import Cluster, Process, Size, cluster
from benchmarks.computed import figures, read_counts
from benchmarks.following import Client, Lost, Request, Tally, Told

STREAMS = 12
KILLS_OF_A_CLUSTER = 6  # of workers: the pauses before they are tried again double
_ON_ITS_WAY_S = 0.2  # what was told before may still come
_QUIET_S = 1.0  # a client that may meet a stopped gateway waits no longer
_KEPT = "x-stream-durability: replicated\r\n"
_ENDED_BY_BOTH = {"stream_not_found", "stream_expired", "engine_died"}


@dataclass
class Bench:
    """One run, over as many clusters as it takes."""

    what: str
    times: int
    size: Size
    folder: Path
    tally: Tally = field(default_factory=Tally)
    when: list[float] = field(default_factory=list)
    names: int = 0
    controls: dict[str, Told] = field(default_factory=dict)

    @property
    def sorts(self) -> dict[str, Request]:
        """What is asked for, by name."""
        return requests("ledger")

    def name(self, sort: str) -> str:
        """Of one more stream."""
        self.names += 1
        return f"{sort.replace(' ', '-')}-{self.names}"

    async def control(self, made: Cluster) -> None:
        """What each sort of stream says while nothing happens."""
        client = Client(made.ports, Tally())
        for sort, request in self.sorts.items():
            self.controls[sort] = await client.follow(request, f"control-{self.name(sort)}")

    async def stream_on(self, client: Client) -> None:
        """One client, for ever."""
        while True:
            await self.stream(client, random.choice(list(self.sorts)))

    async def stream(self, client: Client, sort: str) -> None:
        """One stream of a client, and how it ended."""
        control, tally = self.controls[sort], self.tally
        name = self.name(sort)
        try:
            told = await client.follow(self.sorts[sort], name, control)
        except Lost as lost:
            tally.lost[str(lost)] += 1
        except (OSError, ValueError) as error:
            tally.failed.append(f"{sort}: {error}")
        else:
            tally.usages[name] = told.usage or 0
            if told.whole != control.whole:
                tally.wrong.append(sort)


async def under_load(bench: Bench, client: Client, happens: "asyncio.Future[None]") -> None:
    """Clients stream while something happens."""
    readers = [asyncio.create_task(bench.stream_on(client)) for _ in range(STREAMS)]
    try:
        await happens
        await asyncio.sleep(1)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def kill_again(bench: Bench, made: Cluster, victims: list[list[Process]], n: int) -> None:
    """Kill one of each list at the same moment, and start them anew; so often."""
    for _ in range(n):
        await asyncio.sleep(random.uniform(0.1, 0.6))
        chosen = [random.choice(some) for some in victims]
        for one in chosen:
            one.signal(signal.SIGKILL)
        bench.when.append(time.monotonic())
        for one in chosen:
            one.kill()
            one.start()
        await made.ready()


async def stop_again(bench: Bench, made: Cluster, victims: list[Process], n: int) -> None:
    """Stop one and have it go on after a while; so often."""
    low, high = (3.0, 10.0) if victims is made.gateways else (10.0, 14.0)
    for _ in range(n):
        await asyncio.sleep(random.uniform(0.5, 1.5))
        one = random.choice(victims)
        one.signal(signal.SIGSTOP)
        bench.when.append(time.monotonic())
        await asyncio.sleep(random.uniform(low, high))
        one.signal(signal.SIGCONT)
        await asyncio.sleep(0.5)
        await made.ready()


async def killed(bench: Bench) -> None:
    """SIGKILL for gateways, workers, or one of each at once."""
    left = bench.times
    while left > 0:
        n = left if bench.what == "gateways" else min(left, KILLS_OF_A_CLUSTER)
        async with cluster(bench.size, bench.folder) as made:
            victims = {
                "gateways": [made.gateways], "workers": [made.workers],
                "both": [made.gateways, made.workers],
            }[bench.what]  # fmt: skip
            await bench.control(made)
            happens = asyncio.ensure_future(kill_again(bench, made, victims, n))
            await under_load(bench, Client(made.ports, bench.tally), happens)
        left -= n


async def stopped(bench: Bench) -> None:
    """SIGSTOP, and SIGCONT after a while; what is told then is listened to."""
    left = bench.times
    while left > 0:
        n = left if bench.what == "gateways" else min(left, 3)
        async with cluster(bench.size, bench.folder) as made:
            await bench.control(made)
            gateways = bench.what == "gateways"
            client = Client(made.ports, bench.tally)
            if gateways:
                client = Client(
                    made.ports, bench.tally, quiet_s=_QUIET_S, listens_on=True, headers=_KEPT
                )
            victims = made.gateways if gateways else made.workers
            happens = asyncio.ensure_future(stop_again(bench, made, victims, n))
            await under_load(bench, client, happens)
            await client.overheard()
        left -= n


async def cut(bench: Bench) -> None:
    """Every connection ends after one event; so many streams, some at a time."""
    async with cluster(bench.size, bench.folder) as made:
        await bench.control(made)
        client = Client(made.ports, bench.tally, headers=_KEPT, events=1)
        sorts, room = list(bench.sorts), asyncio.Semaphore(STREAMS)

        async def one(number: int) -> None:
            async with room:
                await bench.stream(client, sorts[number % len(sorts)])

        await asyncio.gather(*(one(number) for number in range(bench.times)))


def said(bench: Bench) -> dict[str, float]:
    """What was seen."""
    tally, waits = bench.tally, bench.tally.waits or [0.0]
    stalls = [
        gap
        for kill in bench.when
        for at, gap in tally.gaps
        if at - gap - _ON_ITS_WAY_S <= kill <= at
    ]
    told: dict[str, float] = {
        "streams": len(tally.usages),
        "streams_resumed": tally.resumed,
        "streams_changed": len(tally.wrong),
        "streams_failed": len(tally.failed),
        **{f"streams_lost: {code}": count for code, count in sorted(tally.lost.items())},
        **{f"went elsewhere: {why}": count for why, count in sorted(tally.breaks.items())},
        **{f"overheard: {end}": count for end, count in sorted(tally.overheard.items())},
        "connections_resumed": len(tally.waits),
        "resume_ms_p50": statistics.median(waits) * 1e3,
        "resume_ms_p99": percentile(waits, 0.99) * 1e3,
        "resume_ms_worst": max(waits) * 1e3,
        "streams_stalled": len(stalls),
        "stall_ms_p50": statistics.median(stalls or [0.0]) * 1e3,
        "stall_ms_p99": percentile(stalls or [0.0], 0.99) * 1e3,
    }
    return {**told, **figures(read_counts(bench.folder), tally.usages)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill", choices=["gateways", "workers", "both", "connections"])
    parser.add_argument("--stop", choices=["gateways", "workers"])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if bool(given.kill) == bool(given.stop):
        parser.error("one of --kill and --stop")
    random.seed(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        size = Size(workers=given.workers)
        bench = Bench(given.kill or given.stop, given.times, size, Path(folder))
        how = stopped if given.stop else cut if given.kill == "connections" else killed
        begun = time.monotonic()
        asyncio.run(how(bench))
        took = time.monotonic() - begun
        for trouble in (bench.tally.wrong, bench.tally.failed):
            print(*trouble[:9], sep="\n", file=sys.stderr)
        print(f"seed {given.seed}, {given.times} times, {took:.0f} s")
        for name, value in said(bench).items():
            print(f"{name:32s} {value:12.1f}")


if __name__ == "__main__":
    main()
