"""Duplicates that race: is a call with an Idempotency-Key computed once, over two gateways?

    python -m benchmarks.duplicates

125 keys by eight requests each, all at once and each through either gateway; one key by 1,000; the
first again while Redis is killed. Nothing is seeded and the temperature is not 0, so two
generations are two texts. How many there were the workers count: every prompt has as many tokens.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import events
from benchmarks.redis_stand import FREE_KEY, Stand, put_functions, stand, wait_for
from tests.support.redis_server import RedisServer, redis_server

KEYS, TIMES, OF_ONE, TOKENS = 125, 8, 1000, 48
SPREAD_S = 0.1  # in which they are sent: some meet a claim, some a stream, some its end
_TOLD_S = 0.5  # until a gateway has heard what its workers have counted
_COUNTED = "penstock_prefix_query_tokens_total"
BODY: dict[str, object] = {
    "model": "penstock-tiny", "max_tokens": TOKENS, "temperature": 0.9,
    "messages": [{"role": "user", "content": "Tell me of the mill, the gate and the water."}],
}  # fmt: skip


@dataclass
class Race:
    """What came back, by key."""

    answers: dict[str, list[tuple[int, str, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )  # through which gateway, the id, the text
    failed: list[str] = field(default_factory=list)
    prompt_tokens: int = 0

    def row(self, generations: float) -> dict[str, float]:
        """The figures."""
        told = self.answers.values()
        twice = [each for each in told if len({text for _, _, text in each}) > 1]
        of_one = [
            {text for through, _, text in each if through == number}
            for each in told
            for number in range(2)
        ]
        return {
            "requests": sum(len(each) for each in told) + len(self.failed),
            "failed": len(self.failed),
            "keys": len(self.answers),
            "generations": generations,
            "ids": len({one for each in told for _, one, _ in each}),
            "keys with two texts": len(twice),
            "two of one gateway": sum(len(texts) > 1 for texts in of_one),
        }


async def one(over: Stand, key: str, through: int, wait_s: float, race: Race) -> None:
    """One request, read to its end."""
    await asyncio.sleep(wait_s)
    pieces, ids = [], set()
    try:
        async for chunk in events(over.url(through), BODY, FREE_KEY, {"Idempotency-Key": key}):
            ids.add(chunk["id"])
            pieces += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
            if chunk.get("usage"):
                race.prompt_tokens = chunk["usage"]["prompt_tokens"]
                assert chunk["usage"]["completion_tokens"] == TOKENS
    except (OSError, EOFError, AssertionError) as error:
        race.failed.append(f"{key}: {error!r}"[-300:])
    else:
        assert len(ids) == 1
        race.answers[key].append((through, *ids, "".join(pieces)))


async def ran(over: Stand, name: str, seed: random.Random, *, keys: int, times: int) -> Race:
    """So many keys, each sent so often, in random order."""
    race = Race()
    plan = [
        (f"{name.replace(' ', '-')}-{number % keys}", seed.randrange(2))
        for number in range(keys * times)
    ]
    seed.shuffle(plan)
    waits = [seed.uniform(0, SPREAD_S) for _ in plan]
    await asyncio.gather(
        *(one(over, *each, wait_s, race) for each, wait_s in zip(plan, waits, strict=True))
    )
    return race


def measured(
    over: Stand, name: str, seed: random.Random, *,
    keys: int, times: int, server: RedisServer | None = None,
) -> Race:  # fmt: skip
    """A race, with what the workers say of it; where a server is given, it is killed meanwhile."""

    async def racing() -> Race:
        running = asyncio.create_task(ran(over, name, seed, keys=keys, times=times))
        if server is not None:
            await asyncio.sleep(seed.uniform(0, SPREAD_S))
            server.kill()
        return await running

    before = over.told(0, _COUNTED)
    race = asyncio.run(racing())
    time.sleep(_TOLD_S)
    generations = (over.told(0, _COUNTED) - before) / (race.prompt_tokens or 1)
    row = race.row(generations)
    told = "  ".join(f"{what} {value:g}" for what, value in row.items())
    silences = sum(over.told(number, "penstock_redis_silences_total") for number in range(2))
    openings = sum(
        over.told(number, "penstock_redis_breaker_openings_total") for number in range(2)
    )
    print(f"{name:24s} {told}  (silences so far {silences:g}, breaker {openings:g})", flush=True)
    for words in (*race.failed[:3], *(over.complaints()[-3:] if race.failed else ())):
        print(f"    {words}")
    return race


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="of those with a kill")
    given = parser.parse_args()
    seed = random.Random(given.seed)
    print(f"seed {given.seed}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(redis_server(folder / "redis", "appendonly yes"))
        put_functions(server.url)
        over = stack.enter_context(stand(folder, server.url))
        measured(over, "warm", seed, keys=4, times=4)
        for number in range(given.rounds):
            measured(over, f"many keys {number}", seed, keys=KEYS, times=TIMES)
            measured(over, f"one key {number}", seed, keys=1, times=OF_ONE)
        for number in range(given.rounds):
            measured(over, f"killed {number}", seed, keys=KEYS, times=TIMES, server=server)
            server.start()
            wait_for(over.up, "both have Redis again")
        assert over.alive()


if __name__ == "__main__":
    main()
