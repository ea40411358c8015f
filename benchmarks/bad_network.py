"""A network that is slow, or a black hole, between the processes of a benchmark; told by lines.

    python -m benchmarks.bad_network PORT      `fine`, `slow` (each answer 500 ms late) or `hole`

A process of its own: what it carries must not wait for those who measure.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.proxy import Proxy

SLOW_S = 0.5


class Network:
    """The process, from outside."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def be(self, how: str) -> None:
        """`fine`, `slow` or `hole`, once this returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(how, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline().strip() == how


@contextmanager
def network(port: int) -> Iterator[Network]:
    """A network to a port, fine at first."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bad_network", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Network(process)
    finally:
        process.kill()
        process.communicate()


async def carry(port: int) -> None:
    async with Proxy(port) as proxy:
        print(proxy.port, flush=True)
        while how := (await asyncio.to_thread(sys.stdin.readline)).strip():
            proxy.delay_s = SLOW_S if how == "slow" else 0.0
            proxy.hole = how == "hole"
            print(how, flush=True)


if __name__ == "__main__":
    asyncio.run(carry(int(sys.argv[1])))
