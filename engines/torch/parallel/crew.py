"""The processes that compute the other parts of a model: started, told of each step, ended."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from engines.errors import ModelRejected
from engines.torch.parallel.part import Part, meet

_RANK = "engines.torch.parallel.rank_process"
_ROOT = Path(__file__).parents[3]  # where `python -m engines...` finds this package
_END_S = 5.0  # they end at once; one that does not is killed
_LOOK_S = 0.02
_SEEN_S = 2.0  # between a connection that breaks and the end of who held it


class Crew:
    """The other processes; this one computes part 0. They end when it does, however it does.

    Raises ModelRejected where one ends at once.
    """

    def __init__(self, part: Part) -> None:
        self.folder = tempfile.mkdtemp(prefix="penstock-parts-")  # 0700
        self._part = replace(part, folder=self.folder)
        self._met = False
        self._closed = False
        self._others: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(1, part.ranks):
                self._others.append(_started())
                self._tell(self._others[-1], replace(self._part, rank=rank).line())
        except OSError as error:
            why = self._rejected()
            self.close()
            raise why from error

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [other.pid for other in self._others]

    def meet(self) -> None:
        """Wait until all have loaded their parts, and join them. Raises ModelRejected."""
        for other in self._others:
            if other.stdout is None or not other.stdout.read(1):
                raise self._rejected()
        meet(self._part)
        self._met = True

    def send(self, frame: bytes) -> None:
        """Tell all of a step. Raises OSError where one has ended."""
        for other in self._others:
            self._tell(other, frame)

    def ended(self) -> str | None:
        """Which of them has ended, in words; waits a little for what is about to."""
        deadline = time.monotonic() + _SEEN_S
        while (who := self._who_ended()) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return who

    def close(self) -> None:
        """End them, and wait until they have. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for other in self._others:
            with contextlib.suppress(OSError):  # of what was not read
                if other.stdin is not None:
                    other.stdin.close()
            if not self._met:
                other.kill()  # it may be importing, and not read yet
        for other in self._others:
            _end(other)
        if self._met and self._part.device == "cpu":  # NCCL would wait for those that are gone
            dist.destroy_process_group()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _rejected(self) -> ModelRejected:
        why = self.ended() or "a process of the model does not answer"
        return ModelRejected(f"{self._part.path}: {why}; the log says why")

    def _tell(self, other: "subprocess.Popen[bytes]", message: bytes) -> None:
        if other.stdin is None:
            raise OSError("no way to a process of the model")
        other.stdin.write(message)
        other.stdin.flush()

    def _who_ended(self) -> str | None:
        for rank, other in enumerate(self._others, 1):
            if other.poll() is not None:
                return f"process {rank} of {self._part.ranks} of the model ended: {other.poll()}"
        return None


def _started() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own module, by the Python that runs
        [sys.executable, "-m", _RANK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
