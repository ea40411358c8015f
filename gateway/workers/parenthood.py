"""A worker does not outlive who started it: its memory, and a GPU's, would be held for nobody."""

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
_EXIT_ORPHAN = 0
_STDIN = 0


def die_with_parent() -> None:
    """From now on this process ends when its parent does.

    The kernel kills it (on Linux: also where it hangs in native code), and a thread of its own
    sees the end of stdin, which the parent holds open.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_wait_for_end, name="penstock-parent", daemon=True).start()


def _wait_for_end() -> None:
    while os.read(_STDIN, 1024):
        pass
    os._exit(_EXIT_ORPHAN)
