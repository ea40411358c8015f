"""What a stream, a key, a limit and an idle gateway cost Redis, as Redis itself counts.

    python -m benchmarks.redis_commands

Differences of `INFO commandstats`. What comes is FCALL; what the functions do inside is counted
by Redis as well, and stands behind it. What comes by the clock was measured before, and is taken
off.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import stream
from benchmarks.redis_stand import FREE_KEY, KEYS, Stand, prompt, put_functions, stand
from tests.support.redis_server import RedisServer, redis_server

STREAMS, TOKENS, MANY_TOKENS = 200, 16, 516
IDLE_S = 20.0
_REST_S = 1.0  # in which limits are told what has ended
_OURS = {"info", "config|resetstat", "ping"}


def counted(server: RedisServer) -> Counter[str]:
    """What Redis has done since it began."""
    rows = (line.split(":") for line in server.cli("INFO", "commandstats").splitlines()[1:])
    calls = {name.removeprefix("cmdstat_"): told for name, told in rows}
    return Counter(
        {
            name: int(told.split("calls=")[1].split(",")[0])
            for name, told in calls.items()
            if name not in _OURS
        }
    )


def by_the_clock(server: RedisServer) -> dict[str, float]:
    """Commands a second while nobody asks for anything."""
    before, begun = counted(server), time.monotonic()
    time.sleep(IDLE_S)
    passed = time.monotonic() - begun
    return {name: calls / passed for name, calls in (counted(server) - before).items()}


async def ask(over: Stand, seed: random.Random, tokens: int, key: str, *, once: bool) -> None:
    """So many streams, a few at a time, over both gateways."""

    async def some(first: int) -> None:
        for number in range(first, STREAMS, 4):
            text = prompt(seed)
            body = {
                "model": "penstock-tiny", "max_tokens": tokens, "temperature": 0,
                "messages": [{"role": "user", "content": text}],
            }  # fmt: skip
            more = {"Idempotency-Key": f"order-{seed.getrandbits(64)}"} if once else {}
            await stream(over.url(number), body, key, more)

    await asyncio.gather(*(some(first) for first in range(4)))


@dataclass
class Meter:
    """What streams cost, beside what comes by the clock."""

    over: Stand
    server: RedisServer
    idle: Mapping[str, float]
    seed: random.Random

    def stream(self, tokens: int, key: str, *, once: bool) -> dict[str, float]:
        """What each of many cost."""
        before, begun = counted(self.server), time.monotonic()
        asyncio.run(ask(self.over, self.seed, tokens, key, once=once))
        time.sleep(_REST_S)
        passed = time.monotonic() - begun
        after = counted(self.server) - before
        return {
            name: (calls - self.idle.get(name, 0) * passed) / STREAMS
            for name, calls in after.items()
        }


def tell(what: str, calls: Mapping[str, float]) -> None:
    """FCALL and whatever else came; then what functions did inside."""
    inside = ", ".join(
        f"{name} {value:.2f}"
        for name, value in sorted(calls.items())
        if name != "fcall" and abs(value) >= 0.02
    )
    print(f"{what:48s} {calls.get('fcall', 0.0):8.3f}   {inside}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    seed = random.Random(given.seed)
    print(f"seed {given.seed}, {STREAMS} streams each")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(redis_server(folder / "redis"))
        put_functions(server.url)
        over = stack.enter_context(stand(folder, server.url))
        asyncio.run(ask(over, seed, TOKENS, KEYS[0], once=True))  # connections are made
        time.sleep(_REST_S)
        print(f"{'':48s} {'FCALL':>8s}   inside functions")
        idle = by_the_clock(server)
        tell("two gateways and two workers, idle, per second", idle)
        meter = Meter(over, server, idle, seed)
        plain = meter.stream(TOKENS, FREE_KEY, once=False)
        tell("a stream", plain)
        long = meter.stream(MANY_TOKENS, FREE_KEY, once=False)
        tell(f"a stream of {MANY_TOKENS} tokens", long)
        more = MANY_TOKENS - TOKENS
        each = {name: (long[name] - plain.get(name, 0.0)) / more for name in long}
        tell("a token", each)
        tell("a stream with an Idempotency-Key", meter.stream(TOKENS, FREE_KEY, once=True))
        tell("a stream of a key with limits", meter.stream(TOKENS, KEYS[0], once=False))
        tell("a stream with both", meter.stream(TOKENS, KEYS[0], once=True))
        over.processes[-1].terminate()
        over.processes[-1].wait(20)
        left = by_the_clock(server)
        gateway = {name: idle[name] - left.get(name, 0.0) for name in idle}
        tell("of the idle ones, a gateway, per second", gateway)


if __name__ == "__main__":
    main()
