"""A process that outlives its worker by a moment, and ends what the worker's engine left behind.

    python -I -S guardian.py MARK

vLLM's processes do not notice that a worker was killed, and would hold the device for nobody. They
carry MARK in their environment; the worker holds this process's stdin open, and the kernel closes
it, however the worker ends. Of the standard library only: it starts in no time and takes no memory.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

_ROUNDS, _PAUSE_S = 100, 0.05  # some may be starting others meanwhile
_TRACKER = b"resource_tracker"  # it ends with those it tracks, and takes their shared memory away


def marked(mark: bytes) -> list[int]:
    """The processes that carry the mark, by Linux's account of them."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            carries = mark in (entry / "environ").read_bytes()
            if carries and _TRACKER not in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def main(mark: bytes) -> None:
    """Wait for the end of the worker; then end the marked, until there are none."""
    while os.read(0, 1024):
        pass
    for _ in range(_ROUNDS):
        pids = marked(mark)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            return
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1].encode("ascii"))
