"""CPU cost of the wire between gateway and worker: microseconds per step frame, on each side.

    python -m benchmarks.wire

An engine that costs nothing gives every stream one token a step, 100 steps a second; the worker
runs in a process of its own. Beside it the same engine read in one process: what mailboxes and
readers cost without a wire.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from engines.api import (
    EngineInfo,
    EngineLoad,
    Finish,
    FinishReason,
    GenerationRequest,
    RequestId,
    Sampling,
    TokenEvent,
)
from engines.limits import Limits
from engines.mailbox import Mailbox
from engines.remote import RemoteEngine
from engines.wire.facts import WorkerFacts
from engines.worker import WorkerServer

STREAMS = (1, 64, 256)
STEPS = 400
STEP_S = 0.01
REPEATS = 3
TOKEN = "benchmark"  # noqa: S105
INFO = EngineInfo("metronome", 4096, 1000, 32, 10_000, 1024)
LIMITS = Limits(4096, 1024, 2048, 32, 10_000, 1000)


class Metronome:
    """An engine that gives every open stream one token at each tick, in one callback."""

    info = INFO

    def __init__(self) -> None:
        self._boxes: dict[Mailbox, int] = {}
        self._steps = 0

    async def start(self) -> None:
        """Begin to tick."""
        self._ticking = asyncio.create_task(self._tick())

    def generate(self, request: GenerationRequest) -> Mailbox:
        """A stream."""
        box = Mailbox(request, lambda *_: None)
        self._boxes[box] = 0
        return box

    def load(self) -> EngineLoad:
        """Steps, so that each is another load."""
        return EngineLoad(len(self._boxes), 0, 0, 0, 10_000, self._steps)

    async def stop(self, grace_s: float) -> None:
        """End ticking."""
        del grace_s
        self._ticking.cancel()

    async def _tick(self) -> None:
        due = asyncio.get_running_loop().time()
        while True:
            due += STEP_S
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            self._steps += 1
            for box, said in list(self._boxes.items()):
                last = said + 1 == box.request.sampling.max_tokens
                finish = Finish(FinishReason.LENGTH, said + 1) if last else None
                box.push(TokenEvent(0, [said % 1000], 0, finish=finish))
                self._boxes[box] = said + 1
                if last:
                    del self._boxes[box]


async def read_all(engine: object, streams: int) -> float:
    """CPU microseconds of this process per step while it reads so many streams."""

    async def follow(number: int) -> int:
        request = GenerationRequest(
            RequestId(str(number)), (1, 2), Sampling(STEPS, temperature=0.0)
        )
        return sum([len(event.tokens) async for event in engine.generate(request)])  # type: ignore[attr-defined]

    begun = time.process_time()
    counts = await asyncio.gather(*(follow(number) for number in range(streams)))
    spent = time.process_time() - begun
    if set(counts) != {STEPS}:
        raise RuntimeError(f"tokens were lost: {set(counts)}")
    return spent / STEPS * 1e6


async def alone(streams: int) -> float:
    """The same in one process."""
    engine = Metronome()
    await engine.start()
    try:
        return await read_all(engine, streams)
    finally:
        await engine.stop(0)


async def host(address: str) -> None:
    """The worker's side: a line of CPU seconds for each line that is read."""
    engine = Metronome()
    await engine.start()
    served = WorkerServer(engine, WorkerFacts(INFO, LIMITS, "0", 1), token=TOKEN)
    await served.start(address)
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(time.process_time(), flush=True)


async def across(streams: int) -> tuple[float, float]:
    """CPU microseconds per step of the gateway's and of the worker's process."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{Path(folder) / 'worker'}"
        command = [sys.executable, "-m", "benchmarks.wire", "--host", address]
        with subprocess.Popen(  # noqa: ASYNC220 - before anything is timed
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as worker:
            try:
                worker.stdout.readline()  # type: ignore[union-attr]
                engine = RemoteEngine(address, token=TOKEN)
                await engine.start()
                before = _cpu_of(worker)
                mine = await read_all(engine, streams)
                theirs = (_cpu_of(worker) - before) / STEPS * 1e6
                await engine.stop(0)
            finally:
                worker.kill()
    return mine, theirs


def _cpu_of(worker: "subprocess.Popen[str]") -> float:
    worker.stdin.write("\n")  # type: ignore[union-attr]
    worker.stdin.flush()  # type: ignore[union-attr]
    return float(worker.stdout.readline())  # type: ignore[union-attr]


def measure() -> dict[str, float]:
    """Medians over repeats, the two arrangements in turn."""
    figures: dict[str, float] = {}
    for streams in STREAMS:
        one, gateway, worker = [], [], []
        for _ in range(REPEATS):
            one.append(uvloop.run(alone(streams)))
            mine, theirs = uvloop.run(across(streams))
            gateway.append(mine)
            worker.append(theirs)
        figures[f"in_process_us_per_step_{streams}"] = statistics.median(one)
        figures[f"gateway_us_per_frame_{streams}"] = statistics.median(gateway)
        figures[f"worker_us_per_frame_{streams}"] = statistics.median(worker)
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--host"]:
        uvloop.run(host(sys.argv[2]))
    else:
        print(json.dumps({name: round(value, 1) for name, value in measure().items()}, indent=2))
