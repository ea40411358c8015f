"""From closing a stream to an engine that holds nothing of it, across the wire: milliseconds.

    python -m benchmarks.cancel

A worker process steps the ledger every 5 ms. A request is closed while it waits, while its prompt
is computed, while it generates, and with its whole session while the worker is stuck in sending.
Freed means that the worker's own load, as told to a session, is back to nothing.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import uvloop

from benchmarks.client import percentile
from engines.api import Capability, EngineInfo, GenerationRequest, RequestId, Sampling
from engines.ledger import LedgerRunner
from engines.limits import Limits
from engines.remote import RemoteEngine
from engines.stepped import SteppedEngine
from engines.wire.channels import SESSION, channel, metadata
from engines.wire.facts import WorkerFacts
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.wire.requests import request_message
from engines.worker import WorkerServer

TOKEN = "benchmark"  # noqa: S105
STEP_S = 0.005
REPEATS = 100
LIMITS = Limits(16_384, 8, 64, 32, 6_000, 1000)
INFO = EngineInfo("ledger", 16_384, 1000, 32, 6_000, 8, frozenset({Capability.SAMPLING}))
LONG = Sampling(8_000, temperature=0.0)


async def host(address: str) -> None:
    """The worker, for ever."""
    runner = LedgerRunner(6_000, 32, vocab_size=1000, step_s=STEP_S)
    engine = SteppedEngine(INFO, LIMITS, runner)
    await engine.start()
    await WorkerServer(engine, WorkerFacts(INFO, LIMITS, "0", 1), token=TOKEN).start(address)
    print("ready", flush=True)
    await asyncio.Event().wait()


def asked(name: str, prompt: int = 8) -> GenerationRequest:
    """A request that runs for long."""
    return GenerationRequest(RequestId(name), tuple(range(1, 9)) * (prompt // 8), LONG)


async def free(engine: RemoteEngine, running: int = 0) -> None:
    """Wait until the engine holds only so many sequences, and nothing waits."""
    while (engine.load().running, engine.load().waiting) != (running, 0):  # noqa: ASYNC110
        await asyncio.sleep(0.0005)


async def while_waiting(engine: RemoteEngine, name: str) -> float:
    """All lanes are taken by others."""
    others = [engine.generate(asked(f"{name}-{number}")) for number in range(8)]
    for other in others:
        await anext(other)
    stream = engine.generate(asked(name))
    while not engine.load().waiting:  # noqa: ASYNC110
        await asyncio.sleep(0.0005)
    begun = time.perf_counter()
    await stream.aclose()
    await free(engine, running=8)
    took = time.perf_counter() - begun
    for other in others:
        await other.aclose()
    await free(engine)
    return took


async def while_computing_the_prompt(engine: RemoteEngine, name: str) -> float:
    """It takes 64 steps."""
    stream = engine.generate(replace(asked(name, 4096), cache_salt=name.encode()))
    while not engine.load().running:  # noqa: ASYNC110
        await asyncio.sleep(0.0005)
    return await _closed(engine, stream.aclose)


async def while_generating(engine: RemoteEngine, name: str) -> float:
    """After the first tokens."""
    stream = engine.generate(asked(name))
    await anext(stream)
    return await _closed(engine, stream.aclose)


async def while_sending(engine: RemoteEngine, name: str, address: str) -> float:
    """The session's window is full, since its gateway reads nothing; then it hangs up."""
    line = channel(address, None)
    talk = line.stream_stream(SESSION, pb.CommandFrame.SerializeToString, pb.StepFrame.FromString)(
        metadata=metadata(TOKEN)
    )
    frame = pb.CommandFrame()
    for handle in range(1, 9):
        frame.submits.add(handle=handle, request=request_message(asked(f"{name}-{handle}")))
    await talk.write(frame)
    await asyncio.sleep(0.5)

    async def hang_up() -> None:
        talk.cancel()

    took = await _closed(engine, hang_up)
    await line.close()
    return took


async def _closed(engine: RemoteEngine, close: Callable[[], Awaitable[None]]) -> float:
    begun = time.perf_counter()
    await close()
    await free(engine)
    return time.perf_counter() - begun


@asynccontextmanager
async def worker() -> AsyncIterator[tuple[RemoteEngine, str]]:
    """A worker process and a session with it."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{Path(folder) / 'worker'}"
        command = [sys.executable, "-m", "benchmarks.cancel", "--host", address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        with process:
            try:
                process.stdout.readline()  # type: ignore[union-attr]
                engine = RemoteEngine(address, token=TOKEN)
                await engine.start()
                yield engine, address
                await engine.stop(0)
            finally:
                process.kill()


async def measure() -> dict[str, float]:
    """Medians and 99th percentiles, one step of 5 ms included."""
    figures = {}
    async with worker() as (engine, address):
        ways = {
            "queue": while_waiting,
            "prefill": while_computing_the_prompt,
            "decode": while_generating,
            "suspended": lambda engine, name: while_sending(engine, name, address),
        }
        for name, way in ways.items():
            repeats = REPEATS // 5 if name == "suspended" else REPEATS
            times = [await way(engine, f"{name}-{number}") for number in range(repeats)]
            figures[f"freed_ms_p50_{name}"] = statistics.median(times) * 1e3
            figures[f"freed_ms_p99_{name}"] = percentile(times, 0.99) * 1e3
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--host"]:
        uvloop.run(host(sys.argv[2]))
    else:
        for name, value in uvloop.run(measure()).items():
            print(f"{name:28s} {value:8.1f}")
