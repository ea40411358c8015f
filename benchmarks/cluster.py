"""Gateways and workers of a benchmark, as processes of their own: killed, stopped, started anew."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import free_port
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret

TOKEN = "a-token-of-a-benchmark"  # noqa: S105
_READY_S = 60.0


@dataclass
class Process:
    """One gateway or worker, over all its lives."""

    words: list[str]
    running: "subprocess.Popen[bytes] | None" = None
    lives: int = 0

    def start(self) -> None:
        """Begin a life of it."""
        self.lives += 1
        words = [word.replace("{life}", str(self.lives)) for word in self.words]
        self.running = subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**os.environ, "PENSTOCK_WORKER_TOKEN": TOKEN},  # noqa: TID251 - a child of it
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def signal(self, sign: signal.Signals) -> None:
        """Send it one."""
        if self.running is not None:
            self.running.send_signal(sign)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self.running is not None:
            self.running.wait(10)

    async def end(self, within_s: float) -> int:
        """SIGTERM; its exit code. Raises TimeoutExpired where it takes longer."""
        self.signal(signal.SIGTERM)
        if self.running is None:
            return 0
        return await asyncio.to_thread(self.running.wait, within_s)


@dataclass(frozen=True)
class Size:
    """How many of what, and what they are told beside."""

    gateways: int = 2
    workers: int = 2
    gateway_flags: tuple[str, ...] = ()
    worker_flags: tuple[str, ...] = ("--max-running", "32")
    redis: bool = False


@dataclass
class Cluster:
    """What runs."""

    folder: Path  # counted workers write here
    ports: list[int] = field(default_factory=list)
    gateways: list[Process] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)
    redis: "subprocess.Popen[bytes] | None" = None

    async def ready(self) -> None:
        """Wait until every gateway has every worker."""
        await asyncio.gather(*(self.fronts_all(port) for port in self.ports))

    async def fronts_all(self, port: int) -> None:
        """Wait until one gateway has every worker. Raises TimeoutError."""
        count = len(self.workers)
        async with asyncio.timeout(_READY_S):
            while f"{count} of {count}" not in await phase(port):  # noqa: ASYNC110 - asks another
                await asyncio.sleep(0.05)

    def close(self) -> None:
        """Kill all of it."""
        for process in (*self.gateways, *self.workers):
            process.kill()
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait(10)


async def phase(port: int) -> str:
    """What a gateway says of its workers; empty where it says nothing."""
    try:
        page = await asyncio.to_thread(
            urllib.request.urlopen, f"http://127.0.0.1:{port}/readyz", timeout=5
        )
        with page:
            return str(page.read().decode())
    except OSError:
        return ""


@contextlib.asynccontextmanager
async def cluster(size: Size, folder: Path) -> AsyncIterator[Cluster]:
    """Counted workers, and gateways over all of them, until the block ends."""
    with tempfile.TemporaryDirectory() as sockets:
        made = Cluster(folder, [free_port() for _ in range(size.gateways)])
        try:
            shared = await _start_redis(made, Path(sockets)) if size.redis else ()
            addresses = [f"unix:{sockets}/{number}" for number in range(size.workers)]
            if size.redis:  # they find each other, by addresses that more than one machine has
                addresses = [f"127.0.0.1:{free_port()}" for _ in addresses]
            made.workers = [
                _worker(folder, address, (*size.worker_flags, *shared)) for address in addresses
            ]
            named = () if size.redis else _each("--worker", addresses)
            flags = (*named, *size.gateway_flags, *shared)
            made.gateways = [
                Process(["gateway", "gateway", "--port", str(port), *flags]) for port in made.ports
            ]
            for process in (*made.workers, *made.gateways):
                process.start()
            await made.ready()
            yield made
        finally:
            made.close()


def _worker(folder: Path, address: str, flags: tuple[str, ...]) -> Process:
    number = len(list(folder.iterdir()))
    told = folder / f"{number}-{address.rpartition('/')[2].replace(':', '-')}-{{life}}.told"
    told.with_name(told.name.replace("{life}", "0")).touch()  # the next is another's
    words = ["benchmarks.counted_worker", str(told), "--engine", "ledger", "--listen", address]
    return Process([*words, *flags])


def _each(flag: str, values: list[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (flag, value))


async def _start_redis(made: Cluster, folder: Path) -> tuple[str, str]:
    """A server of our own; the flags that name it. Raises RuntimeError where there is none."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise RuntimeError("no redis-server here; apt-get install redis-server")
    port = free_port()
    words = [binary, "--port", str(port), "--save", "", "--dir", str(folder)]
    made.redis = subprocess.Popen(words, stdout=subprocess.DEVNULL)  # noqa: ASYNC220 - at once
    url = f"redis://127.0.0.1:{port}"
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Exception):
                await set_up(Secret(url))
                return "--redis", url
            await asyncio.sleep(0.05)
