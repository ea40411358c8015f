"""Two gateways and two workers of the ledger over a Redis: what benchmarks of Redis stand on."""

import asyncio
import http.client
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import free_port
from gateway.redis.registry import registry_keys
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret

TOKEN = "a-token-of-a-benchmark"  # noqa: S105 - of processes that live for minutes
KEYS = tuple(f"sk-benchmark-{number}" for number in range(4))  # each has limits
FREE_KEY = "sk-benchmark-free"  # has none
PER_MINUTE, AT_ONCE = 100_000_000, 64  # never spent: what is refused has been miscounted
_START_S = 60.0


@dataclass(frozen=True)
class Stand:
    """The processes, and where the gateways listen."""

    folder: Path
    ports: tuple[int, ...]
    processes: tuple["subprocess.Popen[bytes]", ...]

    def url(self, number: int) -> str:
        """The base URL of a gateway."""
        return f"http://127.0.0.1:{self.ports[number % len(self.ports)]}/v1"

    def alive(self) -> bool:
        """Whether none of them has ended: nothing starts one anew."""
        return all(process.poll() is None for process in self.processes)

    def complaints(self) -> list[str]:
        """What they logged as errors."""
        lines = [line for log in self.folder.glob("*-*") for line in log.open(errors="replace")]
        return [line for line in lines if '"level": "error"' in line]

    def told(self, number: int, name: str) -> float:
        """The sum of a metric of a gateway over its labels; -1 while it does not answer."""
        there = http.client.HTTPConnection("127.0.0.1", self.ports[number], timeout=5)
        try:
            there.request("GET", "/metrics", headers={"Authorization": f"Bearer {KEYS[0]}"})
            lines = there.getresponse().read().decode().splitlines()
        except (OSError, http.client.HTTPException):
            return -1
        finally:
            there.close()
        return sum(
            float(line.split()[-1]) for line in lines if re.match(rf"{name}(\{{.*\}})? ", line)
        )

    def up(self) -> bool:
        """Whether every gateway says that Redis is."""
        return all(self.told(number, "penstock_redis_up") == 1 for number in range(len(self.ports)))


@contextmanager
def stand(folder: Path, redis_url: str) -> Iterator[Stand]:
    """Started, and each gateway has both workers."""
    keys = folder / "keys.yaml"
    limits = f"tokens_per_minute: {PER_MINUTE}, max_concurrent: {AT_ONCE}"
    rows = [f"  - {{name: k{n}, key: {key}, {limits}}}\n" for n, key in enumerate(KEYS)]
    keys.write_text(f"keys:\n{''.join(rows)}  - {{name: free, key: {FREE_KEY}}}\n")
    keys.chmod(0o600)
    ports = free_port(), free_port()
    with ExitStack() as stack:
        workers = [
            _started(
                stack, "worker", "--engine", "ledger", "--max-running", "64",
                "--listen", f"127.0.0.1:{free_port()}", "--redis", redis_url,
                log=folder / f"worker-{number}",
            )
            for number in range(2)
        ]  # fmt: skip
        gateways = [
            _started(
                stack, "gateway", "--port", str(port), "--redis", redis_url,
                "--api-key-file", str(keys), log=folder / f"gateway-{port}",
            )
            for port in ports
        ]  # fmt: skip
        made = Stand(folder, ports, (*workers, *gateways))
        wait_for(lambda: all(_ready(port) for port in ports) and made.up(), "all are up", _START_S)
        yield made


def _started(stack: ExitStack, *arguments: str, log: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PENSTOCK_WORKER_TOKEN": TOKEN}  # noqa: TID251 - of a child
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=stack.enter_context(log.open("wb")),
    )

    def end() -> None:
        process.kill()
        process.wait(10)

    stack.callback(end)
    return process


def _ready(port: int) -> bool:
    with (
        suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as page,
    ):
        return b"2 of 2" in page.read()
    return False


def wait_for(condition: Callable[[], bool], what: str, within_s: float = 30.0) -> float:
    """Until it is so; the seconds that took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < within_s, f"not within {within_s} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - begun


def put_functions(url: str) -> None:
    """What `penstock redis-setup` does, through any time without Redis that is soon over."""
    asyncio.run(set_up(Secret(url)))


def prompt(seed: random.Random, words: int = 30) -> str:
    """A text that no other request begins with."""
    return " ".join(f"{seed.getrandbits(24):06x}" for _ in range(words))


WORKERS = registry_keys("worker")[0]
