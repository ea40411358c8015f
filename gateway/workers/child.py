"""One worker process that we start: its phases while it loads, its readiness, its end.

stdin   held open: its end is ours, and the worker leaves
pipe    a JSON line for each of {"phase": name}, {"failed": reason}, {"ready": address, ...}
"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import ModelRejected
from gateway.opened import Report

_ROOT = Path(__file__).parents[2]  # where `python -m gateway` finds this package
_STDERR = 2  # what a library prints must not mix with what we print


class WorkerFailed(ModelRejected):
    """A worker process ended before it was ready; says why."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a worker is reached, and the context of its model before any cut."""

    address: str
    own_context: int


class WorkerChild:
    """A started process. Stop it in any case."""

    def __init__(self, process: Process, status: asyncio.StreamReader) -> None:
        self._process = process
        self._status = status

    @classmethod
    async def start(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> "WorkerChild":
        """Run `penstock worker` with these arguments, beside its own, and this environment."""
        status, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", "worker", "--status-fd", str(theirs), *arguments,
                stdin=PIPE, stdout=_STDERR, pass_fds=(theirs,), env=environment, cwd=_ROOT,
                start_new_session=True,  # Ctrl-C is for the gateway, which then ends its workers
            )  # fmt: skip
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(theirs)
        return cls(process, await _reader(status))

    async def ready(self, report: Report) -> Ready:
        """Wait until it serves; `report` hears its phases. Raises WorkerFailed."""
        async for line in self._status:
            match _told(line):
                case {"phase": str(phase)}:
                    report(phase)
                case {"failed": str(reason)}:
                    raise WorkerFailed(reason)
                case {"ready": str(address), "own_context": int(context)}:
                    return Ready(address, context)
        raise WorkerFailed(f"a worker ended before it was ready ({_how(await self.ended())})")

    async def ended(self) -> int:
        """Wait for its exit code; negative: the signal that ended it."""
        return await self._process.wait()

    async def stop(self, grace_s: float) -> None:
        """Ask it to end; kill it where it has not after `grace_s` seconds. Idempotent."""
        if self._process.returncode is None and grace_s:
            self._send(signal.SIGTERM)
            await asyncio.wait({asyncio.ensure_future(self.ended())}, timeout=grace_s)
        if self._process.returncode is None:
            self._send(signal.SIGKILL)
        await self.ended()

    def _send(self, sign: signal.Signals) -> None:
        try:
            self._process.send_signal(sign)
        except ProcessLookupError:
            return  # it has ended just now


async def _reader(fd: int) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    return reader


def _told(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
