"""Durable calls: what they cost Redis, and what is left of them when all that knew them is killed.

    python -m benchmarks.durable --times 200

Two workers and two gateways with a Redis of their own. First, so many streams while nothing
happens: commands and bytes for a token, and how much later their readers get it. Then a gateway
and a worker get SIGKILL in the same moment, again and again, while clients stream, and others
follow responses in the background from whatever gateway is there. Each answer must equal that of
the same request while nothing was killed, and the numbers of events must never come twice.
"""

import argparse
import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.chaos import ASK, requests
from benchmarks.client import percentile
from benchmarks.cluster import Cluster, Size, cluster
from benchmarks.following import Client, Connection, Lost, Refused, Request, Tally, Told

STREAMS, FOLLOWERS = 8, 4
MEASURED, TOKENS = 48, 500
KILLS_OF_A_CLUSTER = 6  # the pauses before a worker is tried again double
SIZE = Size(redis=True)
_DURABLE = "x-stream-durability: durable\r\n"
_GIVE_UP_S, _AGAIN_S = 40.0, 0.05
_STORY: Request = {
    "model": "penstock-tiny", "input": "Tell me of the mill.", "background": True, "stream": True,
    "temperature": 0.8, "seed": 11, "max_output_tokens": 1500,
}  # fmt: skip


@dataclass
class Events:
    """What a follower has of one response."""

    id: str = ""
    number: int = -1
    text: str = ""
    status: str = ""
    stream: str = ""  # unused: a head may tell one
    done: bool = False
    twice: int = 0

    def take(self, line: bytes) -> None:
        """One line. Raises Lost for an error event."""
        if not line.startswith(b"data: "):
            return
        event = json.loads(line[6:])
        kind, number = event["type"], event["sequence_number"]
        if kind == "error":
            raise Lost(event["code"])
        self.twice += number <= self.number
        self.number = number
        if kind == "response.created":
            self.id = event["response"]["id"]
        if kind == "response.output_text.delta":
            self.text += event["delta"]
        if kind in ("response.completed", "response.incomplete"):
            self.status, self.done = event["response"]["status"], True


@dataclass
class Bench:
    """One run, over as many clusters as it takes."""

    streams: Tally = field(default_factory=Tally)
    controls: dict[str, Told] = field(default_factory=dict)
    story: str = ""
    responses: int = 0
    wrong: int = 0
    twice: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)  # of followers, from a break to an event
    kills: list[float] = field(default_factory=list)

    async def control(self, made: Cluster) -> None:
        """What each sort says while nothing happens."""
        client = Client(made.ports, Tally())
        for sort, request in requests("ledger").items():
            self.controls[sort] = await client.follow(request, f"control-{sort}")
        self.story = (await self.follow_one(made.ports)).text

    async def stream_on(self, client: Client) -> None:
        """One client of streams, for ever."""
        sorts, count = requests("ledger"), 0
        while True:
            sort = random.choice(list(sorts))
            count += 1
            control = self.controls[sort]
            try:
                told = await client.follow(sorts[sort], f"{sort}-{id(client)}-{count}", control)
            except Lost as lost:
                self.streams.lost[str(lost)] += 1
            except (OSError, ValueError) as error:
                self.streams.failed.append(f"{sort}: {error}")
            else:
                self.streams.usages[f"{sort}-{id(client)}-{count}"] = told.usage or 0
                if told.whole != control.whole:
                    self.streams.wrong.append(sort)

    async def background_on(self, ports: list[int]) -> None:
        """One who begins responses in the background and follows them, for ever."""
        while True:
            try:
                told = await self.follow_one(ports)
            except Lost as lost:
                self.lost[str(lost)] += 1
            else:
                self.responses += 1
                self.wrong += told.text != self.story
                self.twice += told.twice

    async def follow_one(self, ports: list[int]) -> Events:
        """A response to its end. Raises Lost."""
        told, port = Events(), random.choice(ports)
        body = json.dumps(_STORY).encode()
        head = "POST /v1/responses HTTP/1.1\r\nContent-Type: application/json\r\n"
        heard = broke = time.monotonic()
        while not told.done:
            try:
                connection = await Connection.ask(port, head, body)
                try:
                    async with asyncio.timeout(_GIVE_UP_S):
                        async for _ in connection.follow(told):  # type: ignore[arg-type]
                            heard = time.monotonic()
                            if broke and not body:
                                self.waits.append(heard - broke)
                            broke = 0.0
                finally:
                    connection.close()
            except (OSError, EOFError, Refused) as error:
                broke = broke or time.monotonic()
                if time.monotonic() - heard > _GIVE_UP_S:
                    raise Lost(f"given up: {error}") from error
                await asyncio.sleep(_AGAIN_S)
            port = next(other for other in ports if other != port)
            if told.id:
                after = f"&starting_after={told.number}"
                body, head = b"", f"GET /v1/responses/{told.id}?stream=true{after} HTTP/1.1\r\n"
        return told


async def kill_both(bench: Bench, made: Cluster, times: int) -> None:
    """One gateway and one worker in the same moment; so often."""
    for _ in range(times):
        await asyncio.sleep(random.uniform(0.1, 0.6))
        chosen = [random.choice(made.gateways), random.choice(made.workers)]
        for one in chosen:
            one.signal(signal.SIGKILL)
        bench.kills.append(time.monotonic())
        for one in chosen:
            one.kill()
            one.start()
        await made.ready()


async def under_kills(bench: Bench, made: Cluster, times: int) -> None:
    """Clients stream and follow meanwhile."""
    client = Client(made.ports, bench.streams, headers=_DURABLE)
    readers = [asyncio.create_task(bench.stream_on(client)) for _ in range(STREAMS)]
    readers += [asyncio.create_task(bench.background_on(made.ports)) for _ in range(FOLLOWERS)]
    try:
        await kill_both(bench, made, times)
        await asyncio.sleep(5)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def redis_cli(made: Cluster, *words: str) -> str:
    """What the Redis of a cluster says."""
    if made.redis is None:
        raise RuntimeError("no Redis in this cluster")
    port = list(map(str, made.redis.args))[2]  # type: ignore[arg-type]
    done = subprocess.run(
        ["redis-cli", "-p", port, *words], capture_output=True, check=True, text=True
    )
    return done.stdout


def functions_called(made: Cluster) -> int:
    """So far."""
    for line in redis_cli(made, "INFO", "commandstats").splitlines():
        if line.startswith("cmdstat_fcall:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


@dataclass(frozen=True)
class Cost:
    """Of so many streams, one after another."""

    calls: float  # functions, of one stream
    ttft_ms: float  # median
    gap_ms: float  # the longest of a stream, median


async def cost(made: Cluster, headers: str) -> Cost:
    """What streams of so many tokens cost, of which each runs beside a few."""
    asked = {**ASK, "max_tokens": TOKENS, "temperature": 0.9, "seed": 3}
    begun, before = time.monotonic(), functions_called(made)
    firsts: list[float] = []
    gaps: list[float] = []

    async def some() -> None:
        for _ in range(MEASURED // 4):
            times = await timed(random.choice(made.ports), asked, headers)
            firsts.append(times[1] - times[0])
            gaps.append(max(b - a for a, b in pairwise(times[1:])))

    await asyncio.gather(*(some() for _ in range(4)))
    took, calls = time.monotonic() - begun, functions_called(made) - before
    idle_from, idle_before = time.monotonic(), functions_called(made)
    await asyncio.sleep(5)
    idle = (functions_called(made) - idle_before) / (time.monotonic() - idle_from)
    return Cost(
        (calls - idle * took) / MEASURED,
        statistics.median(firsts) * 1e3,
        statistics.median(gaps) * 1e3,
    )


async def timed(port: int, asked: dict[str, Any], headers: str) -> list[float]:
    """When a stream was asked for, and when each piece of it came."""
    body = json.dumps({"model": "penstock-tiny", **asked, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\n{headers}"
    times, told = [time.monotonic()], Told()
    connection = await Connection.ask(port, head, body)
    try:
        times += [time.monotonic() async for _ in connection.follow(told) if told.pieces]
    finally:
        connection.close()
    return times


def log_bytes(made: Cluster) -> tuple[int, int]:
    """What the logs of calls take, and how many there are."""
    keys = redis_cli(made, "--scan", "--pattern", "*:log").split()
    return sum(int(redis_cli(made, "MEMORY", "USAGE", key)) for key in keys), len(keys)


async def run(times: int, folder: Path) -> None:
    """Both parts, printed."""
    bench, left = Bench(), times
    async with cluster(SIZE, folder) as made:
        plain, durable = await cost(made, ""), await cost(made, _DURABLE)
        size, count = log_bytes(made)
        for name, value in {
            "commands for a plain stream": plain.calls,
            "commands for a durable stream": durable.calls,
            "commands for a token of it": durable.calls / TOKENS,
            "bytes in Redis for a token": size / (count * TOKENS),
            "plain: first token ms p50": plain.ttft_ms,
            "durable: first token ms p50": durable.ttft_ms,
            "plain: longest gap ms p50": plain.gap_ms,
            "durable: longest gap ms p50": durable.gap_ms,
        }.items():
            print(f"{name:40s} {value:12.3f}", flush=True)
    while left > 0:
        async with cluster(SIZE, folder) as made:
            await bench.control(made)
            await under_kills(bench, made, min(left, KILLS_OF_A_CLUSTER))
        left -= KILLS_OF_A_CLUSTER
    tally = bench.streams
    print(*tally.failed[:9], *tally.wrong[:9], sep="\n", file=sys.stderr)
    waits = [*tally.waits] or [0.0]
    for name, value in {
        "gateways and workers killed at once": len(bench.kills),
        "streams": len(tally.usages),
        "streams resumed": tally.resumed,
        "streams changed": len(tally.wrong),
        "streams failed": len(tally.failed),
        **{f"streams lost: {code}": count for code, count in sorted(tally.lost.items())},
        "stream resume ms p50": statistics.median(waits) * 1e3,
        "stream resume ms p99": percentile(waits, 0.99) * 1e3,
        "responses in the background": bench.responses,
        "responses changed": bench.wrong,
        "events with a number told before": bench.twice,
        **{f"responses lost: {code}": count for code, count in sorted(bench.lost.items())},
        "follower resume ms p50": statistics.median(bench.waits or [0.0]) * 1e3,
        "follower resume ms p99": percentile(bench.waits or [0.0], 0.99) * 1e3,
    }.items():
        print(f"{name:40s} {value:12.1f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    random.seed(given.seed)
    print(f"seed {given.seed}")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(given.times, Path(folder)))


if __name__ == "__main__":
    main()
