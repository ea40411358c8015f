"""Workers ended under load: is a token lost, doubled or changed, and how long do streams stall?

    python -m benchmarks.chaos --kills 100
    python -m benchmarks.chaos --kills 20 --engine torch
    python -m benchmarks.chaos --kills 3 --replicas 3 --streams 200 --how rolling

A `penstock serve` with some replicas, and clients that stream all the time: greedy and seeded
text, two choices, stop strings, JSON schemas, forced tool calls, log-probabilities on torch.
Each answer must equal the one of the same request while nothing was killed. Again and again a
worker gets SIGKILL at a random moment; or SIGTERM one after the other, where it is `rolling`.
"""

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from benchmarks.client import events, free_port, percentile

_GAP_S = 0.05  # shorter pauses between chunks are no stalls
KILLS_OF_A_SERVER = 6  # the pauses before restarts double: it would be waiting that is measured
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 60},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 9},
        "size": {"type": "integer"},
    },
    "required": ["name", "tags", "size"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "note", "parameters": SCHEMA, "strict": True},
}
ASK = {"messages": [{"role": "user", "content": "Tell me of the mill, the gate and the water."}]}
Request = dict[str, object]
Answer = tuple[object, ...]


def requests(engine: str) -> dict[str, Request]:
    """One of each sort, long enough to be met by a kill."""
    long = {"max_tokens": 1200 if engine == "ledger" else 250}
    free = {"temperature": 0.9, "seed": 7}
    form = {"type": "json_schema", "json_schema": {"name": "f", "schema": SCHEMA, "strict": True}}
    sorts: dict[str, Request] = {
        "greedy": {**ASK, **long, "temperature": 0},
        "seeded": {**ASK, **long, **free},
        "two choices": {**ASK, **long, **free, "n": 2},
        "stop string": {**ASK, **long, **free, "stop": ["zq", "the river"]},
        "schema": {**ASK, **long, **free, "response_format": form},
        "tool": {**ASK, **long, **free, "tools": [TOOL], "tool_choice": "required"},
    }
    if engine == "torch":
        sorts["logprobs"] = {**ASK, **long, **free, "logprobs": True, "top_logprobs": 2}
        sorts["penalties"] = {**ASK, **long, **free, "frequency_penalty": 0.5}
    return sorts


@dataclass(frozen=True)
class Plan:
    """What is asked for on the command line."""

    engine: str
    kills: int
    how: str
    streams: int
    replicas: int
    seed: int


@dataclass
class Tally:
    """What was seen."""

    streams: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)  # (when, seconds) of a stream

    def stalls(self, kills: list[float]) -> list[float]:
        """The longest gap of each stream that a kill fell into, for each kill."""
        return [gap for kill in kills for at, gap in self.gaps if at - gap <= kill <= at]


@contextmanager
def server(plan: Plan) -> Iterator[tuple[psutil.Process, str]]:
    """A `penstock serve`, until the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port)]
    command += ["--engine", plan.engine, "--replicas", str(plan.replicas), "--max-running", "32"]
    if plan.engine == "torch":  # others than float32 do not give the same bits in every batch
        command += ["--dtype", "float32"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(process.pid), f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def workers(parent: psutil.Process) -> list[psutil.Process]:
    """The worker processes that live."""
    return [
        child for child in parent.children() if "-m gateway worker" in " ".join(child.cmdline())
    ]


async def told(url: str, name: str) -> float:
    """A figure of /metrics; -1 while the server does not tell it."""
    try:
        page = await asyncio.to_thread(urllib.request.urlopen, url.removesuffix("/v1") + "/metrics")
        with page:
            lines = page.read().decode().splitlines()
    except OSError:
        return -1
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), -1)


async def ready(url: str, replicas: int, restarts: int) -> None:
    """Wait until all replicas are up, after so many restarts."""
    async with asyncio.timeout(60):
        while (  # noqa: ASYNC110 - another process is asked
            await told(url, "penstock_worker_restarts_total") < restarts
            or await told(url, "penstock_replicas_up") < replicas
        ):
            await asyncio.sleep(0.05)


async def answer(url: str, request: Request, tally: Tally) -> Answer:
    """The whole of a streamed answer, by choice; notes the gaps between its chunks."""
    texts: dict[int, list[str]] = {}
    scores: dict[int, list[str]] = {}
    ends: dict[int, str] = {}
    usage = None
    last = time.monotonic()
    async for chunk in events(url, {"model": "penstock-tiny", **request}):
        now = time.monotonic()
        if now - last > _GAP_S:
            tally.gaps.append((now, now - last))
        last = now
        usage = chunk.get("usage") and chunk["usage"]["completion_tokens"]
        for choice in chunk["choices"]:
            index, delta = choice["index"], choice["delta"]
            pieces = texts.setdefault(index, [])
            pieces.append(delta.get("content") or "")
            for call in delta.get("tool_calls", ()):
                function = call["function"]
                pieces.append(f"{function.get('name', '')}{function.get('arguments', '')}")
            for entry in (choice.get("logprobs") or {}).get("content") or ():
                scores.setdefault(index, []).append(f"{entry['token']} {entry['logprob']:.4f}")
            ends[index] = choice["finish_reason"] or ends.get(index, "")
    joined = {index: "".join(pieces) for index, pieces in sorted(texts.items())}
    return joined, scores, ends, usage


async def stream_on(
    url: str, sorts: dict[str, Request], controls: dict[str, Answer], tally: Tally
) -> None:
    """One client, for ever."""
    while True:
        name = random.choice(list(sorts))
        try:
            said = await answer(url, sorts[name], tally)
        except (OSError, EOFError) as error:
            tally.failed.append(f"{name}: {error}")
        else:
            tally.streams += 1
            if said != controls[name]:
                tally.wrong.append(name)


async def run(plan: Plan) -> dict[str, float]:
    """End workers so often, and tell what became of the streams."""
    random.seed(plan.seed)
    tally, when = Tally(), []
    while len(when) < plan.kills:
        await one_server(plan, min(KILLS_OF_A_SERVER, plan.kills - len(when)), tally, when)
    for told in (tally.wrong[:5], tally.failed[:5]):
        print(*told, sep="\n", file=sys.stderr)
    stalls = tally.stalls(when)
    return {
        "workers_ended": plan.kills,
        "streams": tally.streams,
        "streams_changed": len(tally.wrong),
        "streams_failed": len(tally.failed),
        "streams_stalled_by_it": len(stalls),
        "stall_ms_p50": statistics.median(stalls) * 1e3 if stalls else 0.0,
        "stall_ms_p99": percentile(stalls, 0.99) * 1e3 if stalls else 0.0,
    }


async def one_server(plan: Plan, kills: int, tally: Tally, when: list[float]) -> None:
    """End workers of one server so often, each time when all are up."""
    sorts = requests(plan.engine)
    with server(plan) as (parent, url):
        await ready(url, plan.replicas, 0)
        controls = {name: await answer(url, request, Tally()) for name, request in sorts.items()}
        readers = [
            asyncio.create_task(stream_on(url, sorts, controls, tally)) for _ in range(plan.streams)
        ]
        line = workers(parent)
        for number in range(1, kills + 1):
            await asyncio.sleep(random.uniform(0.2, 0.9))
            if plan.how == "rolling":
                line.pop(0).terminate()
            else:
                random.choice(workers(parent)).kill()
            when.append(time.monotonic())
            await ready(url, plan.replicas, number)
        await asyncio.sleep(1)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engine", choices=["ledger", "torch"], default="ledger")
    parser.add_argument("--how", choices=["kill", "rolling"], default="kill")
    parser.add_argument("--streams", type=int, default=12)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    plan = Plan(**vars(parser.parse_args()))
    for name, value in asyncio.run(run(plan)).items():
        print(f"{name:32s} {value:10.1f}")


if __name__ == "__main__":
    main()
