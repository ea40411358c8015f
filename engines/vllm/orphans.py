"""Sees to it that no process of an engine outlives its worker, however that ends."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

_MARK = "ENGINE_OF_PENSTOCK_WORKER"  # PENSTOCK_* are settings
_GUARDIAN = Path(__file__).with_name("guardian.py")
_RELEASE_S = 10.0


class Guard:
    """The guardian of the processes that this one starts from now on. Linux; no harm elsewhere.

    It must be kept: with its last reference goes the pipe that holds the guardian back. Processes
    must be spawned, not forked: a forked one would hold the pipe open.
    """

    def __init__(self) -> None:
        mark = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._process = subprocess.Popen(  # noqa: S603 - our own file, no shell
            [sys.executable, "-I", "-S", str(_GUARDIAN), f"{_MARK}={mark}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what a terminal sends the worker is not for it
            env={},
        )
        os.environ[_MARK] = mark  # noqa: TID251 - written, for those to be started; not read

    def release(self) -> None:
        """End what is left now. Idempotent; blocks for a moment."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(_RELEASE_S)
