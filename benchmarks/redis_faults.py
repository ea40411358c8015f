"""Redis that fails under load, in every way that we know: what do streams notice of it?

    python -m benchmarks.redis_faults --rounds 5

Two gateways, two workers of the ledger, keys with limits, half of the calls with an
Idempotency-Key. Calls come at random moments all the time. In each round every fault comes once,
in random order: a window without it, then the fault, then the time until both gateways have Redis
again and both workers are registered, with nothing restarted but Redis itself. `none` is a fault
that does nothing: what it seems to add is noise.
"""

import argparse
import asyncio
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from benchmarks.bad_network import network
from benchmarks.client import percentile, stream
from benchmarks.redis_stand import KEYS, WORKERS, Stand, prompt, put_functions, stand, wait_for
from tests.support.redis_server import RedisServer, SentinelTrio, redis_server, sentinel_trio

RATE = 24.0  # streams a second
TOKENS, LONG_TOKENS, LONGS = 16, 150, 2
WINDOW_S = 5.0
_PAUSE_S = 1.0
_LATE_S = 0.005


@dataclass(frozen=True)
class Fault:
    """How Redis fails, how it comes back, and who is asked then."""

    begin: Callable[[], None]
    end: Callable[[], None]
    server: Callable[[], RedisServer]


@dataclass
class Seen:
    """What was seen of one fault."""

    before: list[list[float]] = field(default_factory=list)  # TTFT in seconds, by round
    during: list[list[float]] = field(default_factory=list)
    streams: int = 0
    failed: list[str] = field(default_factory=list)
    recovered_s: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """The figures of a table, times in ms."""
        before, during = [*chain(*self.before)], [*chain(*self.during)]
        late = percentile(before, 0.99) + _LATE_S
        added = [
            percentile(two, 0.99) - percentile(one, 0.99)
            for one, two in zip(self.before, self.during, strict=True)
        ]
        return {
            "streams": self.streams,
            "failed": len(self.failed),
            "p50 before": 1e3 * statistics.median(before),
            "p50 during": 1e3 * statistics.median(during),
            "p99 before": 1e3 * percentile(before, 0.99),
            "p99 during": 1e3 * percentile(during, 0.99),
            "added p99": 1e3 * (percentile(during, 0.99) - percentile(before, 0.99)),
            "by round": 1e3 * statistics.median(added),
            "late": sum(one > late for one in during),
            "worst": 1e3 * max(during),
            "recovered s": statistics.median(self.recovered_s),
            "slowest s": max(self.recovered_s),
        }


class Load:
    """Streams that begin all the time, through both gateways, for all keys."""

    def __init__(self, over: Stand, seed: random.Random) -> None:
        self._over = over
        self._seed = seed
        self._number = 0
        self._running: set[asyncio.Task[None]] = set()
        self.firsts: list[tuple[float, float]] = []  # when sent, and the time to the first token
        self.failed: list[str] = []
        self.ended = 0

    async def run(self) -> None:
        """For ever, at random moments."""
        while True:
            await asyncio.sleep(self._seed.expovariate(RATE))
            self.begin(TOKENS)

    def begin(self, tokens: int) -> None:
        """One stream of so many tokens."""
        task = asyncio.create_task(self._stream(self._number, tokens))
        self._number += 1
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def over(self) -> None:
        """Wait until what runs has ended."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=30)

    async def _stream(self, number: int, tokens: int) -> None:
        text = prompt(self._seed)
        body = {
            "model": "penstock-tiny", "max_tokens": tokens, "temperature": 0,
            "messages": [{"role": "user", "content": text}],
        }  # fmt: skip
        more = {"Idempotency-Key": f"order-{text[:40].replace(' ', '')}"} if number % 2 else {}
        url, key = self._over.url(number // 2), KEYS[number % len(KEYS)]
        began = time.monotonic()
        try:
            told = await stream(url, body, key, more)
            if told.tokens != tokens:
                raise ConnectionError(f"{told.tokens} tokens, not {tokens}")
        except OSError as error:
            self.failed.append(f"{time.monotonic() - began:.2f} s: {error}"[:300])
        else:
            if tokens == TOKENS:
                self.firsts.append((began, told.first))
        self.ended += 1

    def between(self, begin: float, end: float) -> list[float]:
        """The times to first tokens of streams that began then."""
        return [first for began, first in self.firsts if begin <= began < end]


def single(server: RedisServer, be: Callable[[str], None]) -> dict[str, Fault]:
    """The faults of one server; functions and keys are in its append-only file."""

    def fault(begin: Callable[[], object], end: Callable[[], object]) -> Fault:
        return Fault(lambda: void(begin()), lambda: void(end()), lambda: server)

    def emptied() -> None:
        server.kill()
        shutil.rmtree(server.folder / "appendonlydir")
        server.start()

    return {
        "none": fault(nothing, nothing),
        "killed": fault(server.kill, server.start),
        "frozen": fault(server.freeze, server.thaw),
        "slow": fault(lambda: be("slow"), lambda: be("fine")),
        "black hole": fault(lambda: be("hole"), lambda: be("fine")),
        "flushed": fault(lambda: server.cli("FLUSHALL"), nothing),
        "full": fault(
            lambda: server.cli("CONFIG", "SET", "maxmemory", "1"),
            lambda: server.cli("CONFIG", "SET", "maxmemory", "0"),
        ),
        "restarted empty": fault(emptied, lambda: put_functions(server.url)),
    }


def failover(trio: SentinelTrio) -> dict[str, Fault]:
    """The master is killed, and is a replica when it is back; then it is the other's turn."""
    pair = [trio.master, trio.replica]

    def kill() -> None:
        pair[0].kill()
        pair.reverse()

    def come_back() -> None:
        pair[1].start()
        wait_for(lambda: "role:master" in pair[0].cli("INFO", "replication"), "a new master")
        wait_for(lambda: "master_link_status:up" in pair[1].cli("INFO", "replication"), "a replica")

    return {"failed over": Fault(kill, come_back, lambda: pair[0])}


def nothing() -> None:
    """Do it."""


def void(_: object) -> None:
    """Of an answer that nobody needs."""


async def suffer(name: str, fault: Fault, over: Stand, load: Load, seen: Seen) -> None:
    """One window without the fault, one with it, and the way back."""
    streams, failed = load.ended, len(load.failed)
    before = await window(load)
    begun = time.monotonic()
    during = asyncio.create_task(window(load))
    await asyncio.to_thread(fault.begin)
    await during
    ended = time.monotonic()
    if name == "failed over":  # it ends by itself
        recovered = await asyncio.to_thread(back, over, fault)
        recovered += ended - begun
        await asyncio.to_thread(fault.end)
    else:
        await asyncio.to_thread(fault.end)
        recovered = await asyncio.to_thread(back, over, fault)
    await asyncio.sleep(_PAUSE_S)
    await load.over()
    seen.before.append(load.between(*before))
    seen.during.append(load.between(*during.result()))
    seen.recovered_s.append(recovered)
    seen.streams += load.ended - streams
    seen.failed += load.failed[failed:]
    assert over.alive()


async def window(load: Load) -> tuple[float, float]:
    """A window of time, with some long streams from its start on."""
    begun = time.monotonic()
    for _ in range(LONGS):
        load.begin(LONG_TOKENS)
    await asyncio.sleep(WINDOW_S)
    return begun, begun + WINDOW_S


def back(over: Stand, fault: Fault) -> float:
    """The seconds until everything is as it was."""
    return wait_for(
        lambda: fault.server().try_cli("HLEN", WORKERS) == "2" and over.up(), "it is back"
    )


async def run(
    over: Stand, faults: Mapping[str, Fault], rounds: int, seed: random.Random
) -> dict[str, Seen]:
    """Every fault once in each round."""
    seen = {name: Seen() for name in faults}
    load = Load(over, seed)
    loading = asyncio.create_task(load.run())
    await asyncio.sleep(WINDOW_S)  # everything has been done once
    for _ in range(rounds):
        for name in seed.sample(sorted(faults), len(faults)):
            await suffer(name, faults[name], over, load, seen[name])
    loading.cancel()
    with suppress(asyncio.CancelledError):
        await loading
    await load.over()
    return seen


@contextmanager
def alone() -> Iterator[tuple[Stand, dict[str, Fault]]]:
    """Everything over one server, with a network before it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(redis_server(folder / "redis", "appendonly yes"))
        put_functions(server.url)
        between = stack.enter_context(network(server.port))
        over = stack.enter_context(stand(folder, f"redis://127.0.0.1:{between.port}"))
        yield over, single(server, between.be)


@contextmanager
def watched() -> Iterator[tuple[Stand, dict[str, Fault]]]:
    """Everything over a master and a replica with three sentinels."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trio = stack.enter_context(sentinel_trio(folder))
        put_functions(trio.url)
        yield stack.enter_context(stand(folder, trio.url)), failover(trio)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="these faults, and `none`")
    given = parser.parse_args()
    print(f"seed {given.seed}, {given.rounds} rounds, windows of {WINDOW_S:.0f} s")
    for place in (alone, watched):
        with place() as (over, faults):
            chosen = {n: f for n, f in faults.items() if given.only is None or n in given.only}
            if chosen:
                seed = random.Random(given.seed)
                tell(asyncio.run(run(over, chosen, given.rounds, seed)))


def tell(seen: Mapping[str, Seen]) -> None:
    """The table, and what failed."""
    rows = {name: each.row() for name, each in seen.items()}
    print(f"{'':16s}" + "".join(f"{title:>12s}" for title in next(iter(rows.values()))))
    for name, row in rows.items():
        print(f"{name:16s}" + "".join(f"{value:12.4g}" for value in row.values()), flush=True)
        for words in seen[name].failed[:5]:
            print(f"    {words}")


if __name__ == "__main__":
    main()
