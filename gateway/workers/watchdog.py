"""Ends a worker whose engine has work and takes no step: its gateway goes on elsewhere.

Two clocks watch: a thread of ours, and a timer of the interpreter's own for code that never gives
the interpreter lock back. Both write where every thread stands to stderr.
"""

import faulthandler
import os
import threading
import time
from collections.abc import Callable

from engines.api import EngineLoad

EXIT_STUCK = 70  # EX_SOFTWARE, as where an engine dies
_STDERR = 2
_LOOKS_PER_TIMEOUT = 20
_LONGEST_LOOK_S = 1.0


class Heartbeat:
    """Notices that an engine with work has taken no step for `timeout_s`. Pure."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._steps = -1
        self._since = 0.0

    def is_stuck(self, load: EngineLoad, now: float) -> bool:
        """Whether it is, by its load now; to be asked several times within the timeout."""
        idle = not load.running and not load.waiting
        if idle or load.steps != self._steps:
            self._steps, self._since = load.steps, now
        return now - self._since >= self._timeout_s


def watch(load: Callable[[], EngineLoad], timeout_s: float) -> None:
    """Watch an engine for the rest of the process."""
    threading.Thread(
        target=_watch, args=(load, timeout_s), name="penstock-watchdog", daemon=True
    ).start()


def _watch(load: Callable[[], EngineLoad], timeout_s: float) -> None:
    heartbeat = Heartbeat(timeout_s)
    look_s = min(_LONGEST_LOOK_S, timeout_s / _LOOKS_PER_TIMEOUT)
    while not heartbeat.is_stuck(load(), time.monotonic()):
        faulthandler.dump_traceback_later(timeout_s + look_s, exit=True, file=_STDERR)
        time.sleep(look_s)
    faulthandler.dump_traceback(file=_STDERR, all_threads=True)
    os._exit(EXIT_STUCK)
