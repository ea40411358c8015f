"""Gateways killed under load: do clients that come back lose a token, and how long do they wait?

    python -m benchmarks.resume --kills 200

Two workers and two gateways that front both. Clients stream all the time through either; again and
again one gateway gets SIGKILL at a random moment, and is started anew. Whose connection breaks goes
on with `Last-Event-ID` at the other one. Each answer must equal that of the same request while
nothing was killed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos import requests
from benchmarks.client import dechunked, free_port, percentile

STREAMS = 12
TOKEN = "a-token-of-a-benchmark"  # noqa: S105
Request = dict[str, object]


@dataclass
class Told:
    """What a client has of one stream."""

    pieces: dict[int, list[str]] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    usage: int | None = None
    place: str = ""
    stream: str = ""
    done: bool = False

    def take(self, line: bytes) -> None:
        """One line of the stream."""
        if line.startswith(b"id: "):
            self.place = line[4:].decode()
        elif line == b"data: [DONE]":
            self.done = True
        elif line.startswith(b"data: "):
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise ConnectionError(chunk["error"]["message"])
            self.usage = chunk["usage"]["completion_tokens"] if chunk.get("usage") else self.usage
            for choice in chunk["choices"]:
                self._take(choice)

    def _take(self, choice: dict[str, object]) -> None:
        index, delta = choice["index"], choice["delta"]
        pieces = self.pieces.setdefault(index, [])  # type: ignore[arg-type]
        pieces.append(delta.get("content") or "")  # type: ignore[attr-defined]
        for call in delta.get("tool_calls", ()):  # type: ignore[attr-defined]
            pieces.append("".join(call["function"].values()))
        if choice["finish_reason"]:
            self.ends[index] = choice["finish_reason"]  # type: ignore[index,assignment]

    @property
    def whole(self) -> tuple[object, ...]:
        """What must not depend on how it came."""
        texts = {index: "".join(pieces) for index, pieces in sorted(self.pieces.items())}
        return texts, self.ends, self.usage


@dataclass
class Tally:
    """What was seen."""

    streams: int = 0
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # from coming back to the next event, seconds


async def exchange(port: int, head: str, body: bytes, told: Told) -> AsyncIterator[None]:
    """Read a stream into `told`; yields after every line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}Host: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        if not answer.startswith("HTTP/1.1 200"):
            raise RuntimeError(f"{answer[:40]} {(await reader.read(300))!r}")
        names = (line.partition(": ") for line in answer.lower().split("\r\n"))
        told.stream = next(value for name, _, value in names if name == "x-stream-id")
        async for line in dechunked(reader):
            told.take(line)
            yield
            if told.done:
                return
    finally:
        writer.close()


async def follow(ports: list[int], request: Request, tally: Tally) -> Told:
    """One stream to its end, through whoever is there."""
    asked = {"model": "penstock-tiny", **request, "stream": True}
    body = json.dumps({**asked, "stream_options": {"include_usage": True}}).encode()
    told, port = Told(), random.choice(ports)
    head = "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
    deadline = time.monotonic() + 10
    while not told.done:
        begun = time.monotonic()
        try:
            async for _ in exchange(port, head, body, told):
                if begun and told.stream and not body:
                    tally.waits.append(time.monotonic() - begun)
                    begun = 0
        except (OSError, EOFError, RuntimeError) as error:
            # Nothing was told yet: the call may be made again. Else it is gone on with.
            if time.monotonic() > deadline:
                raise ConnectionError(f"given up: {error}") from error
            port = next(other for other in ports if other != port)
            if told.stream:
                tally.resumed += bool(body)
                body = b""
                head = f"GET /v1/chat/completions/{told.stream}/stream HTTP/1.1\r\n"
                head += f"Last-Event-ID: {told.place}\r\n" if told.place else ""
            await asyncio.sleep(0.01)
        else:
            if not told.done:
                raise ConnectionError("a clean end without [DONE]")
    return told


async def stream_on(
    ports: list[int], sorts: dict[str, Request], controls: dict[str, object], tally: Tally
) -> None:
    """One client, for ever."""
    while True:
        name = random.choice(list(sorts))
        try:
            told = await follow(ports, sorts[name], tally)
        except OSError as error:
            tally.failed.append(f"{name}: {error}")
        else:
            tally.streams += 1
            if told.whole != controls[name]:
                tally.wrong.append(name)


def started(*arguments: str) -> "subprocess.Popen[bytes]":
    """A process of Penstock."""
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        env={**os.environ, "PENSTOCK_WORKER_TOKEN": TOKEN},  # noqa: TID251 - a child of it
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def cluster() -> Iterator[tuple[list[int], list["subprocess.Popen[bytes]"], list[str]]]:
    """Two workers, and two gateways over them: their ports, processes, and how to start them."""
    with tempfile.TemporaryDirectory() as folder:
        addresses = [f"unix:{Path(folder) / str(number)}" for number in range(2)]
        workers = [
            started("worker", "--engine", "ledger", "--max-running", "32", "--listen", address)
            for address in addresses
        ]
        flags = [flag for address in addresses for flag in ("--worker", address)]
        ports = [free_port(), free_port()]
        gateways = [started("gateway", "--port", str(port), *flags) for port in ports]
        try:
            yield ports, gateways, flags
        finally:
            for process in (*workers, *gateways):
                process.kill()
                process.wait(10)


async def ready(port: int) -> None:
    """Wait until both workers are behind a gateway."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                url = f"http://127.0.0.1:{port}/readyz"
                with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as page:
                    if b"2 of 2" in page.read():
                        return
            await asyncio.sleep(0.05)


async def run(kills: int, seed: int) -> dict[str, float]:
    """Kill gateways so often, and tell what became of the streams."""
    random.seed(seed)
    tally, sorts = Tally(), requests("ledger")
    with cluster() as (ports, gateways, flags):
        for port in ports:
            await ready(port)
        controls = {
            name: (await follow(ports, each, Tally())).whole for name, each in sorts.items()
        }
        readers = [
            asyncio.create_task(stream_on(ports, sorts, controls, tally)) for _ in range(STREAMS)
        ]
        for _ in range(kills):
            await asyncio.sleep(random.uniform(0.1, 0.6))
            victim = random.randrange(2)
            gateways[victim].send_signal(signal.SIGKILL)
            gateways[victim].wait()
            gateways[victim] = started("gateway", "--port", str(ports[victim]), *flags)
            await ready(ports[victim])
        await asyncio.sleep(1)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    for told in (tally.wrong[:5], tally.failed[:5]):
        print(*told, sep="\n", file=sys.stderr)
    waits = tally.waits or [0.0]
    return {
        "gateways_killed": kills,
        "streams": tally.streams,
        "streams_resumed": tally.resumed,
        "streams_changed": len(tally.wrong),
        "streams_failed": len(tally.failed),
        "resume_ms_p50": statistics.median(waits) * 1e3,
        "resume_ms_p99": percentile(waits, 0.99) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for name, value in asyncio.run(run(given.kills, given.seed)).items():
        print(f"{name:32s} {value:10.1f}")


if __name__ == "__main__":
    main()
