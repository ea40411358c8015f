"""What a worker says while it starts: lines for an operator, or JSON for who started it."""

import json
import os
from contextlib import suppress
from time import monotonic
from typing import IO, Protocol

from gateway.kv_budget import KvBudget


class Status(Protocol):
    """Hears what a starting worker is at."""

    def phase(self, name: str) -> None:
        """A phase of loading begins."""

    def failed(self, reason: str) -> None:
        """It will not serve; one sentence."""

    def ready(self, address: str, kv: KvBudget) -> None:
        """It serves."""


class ForOperator:
    """Lines to read."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._began = monotonic()

    def phase(self, name: str) -> None:
        self._say(name)

    def failed(self, reason: str) -> None:
        self._say(f"penstock: cannot serve: {reason}")

    def ready(self, address: str, kv: KvBudget) -> None:
        if kv.block_bytes:  # encoders have none
            self._say(f"KV cache: {kv}")
        self._say(f"Worker at {address} (ready in {monotonic() - self._began:.1f} s)")

    def _say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class ForParent:
    """JSON lines on a pipe, which `WorkerChild` reads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def phase(self, name: str) -> None:
        self._tell({"phase": name})

    def failed(self, reason: str) -> None:
        self._tell({"failed": reason})

    def ready(self, address: str, kv: KvBudget) -> None:
        self._tell({"ready": address, "own_context": kv.need.context})

    def _tell(self, message: dict[str, object]) -> None:
        with suppress(BrokenPipeError):  # then its end is near
            os.write(self._fd, json.dumps(message).encode() + b"\n")
