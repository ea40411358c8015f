"""Memory of the KV cache made real shortly before it is used, beside the computing.

Pages that were never written cost a fault each, and where the system has to find them anew, as in
many virtual machines, as much as two milliseconds for a MiB: a step that writes the prompts of
sixteen streams waited for 70 ms. So a thread of low priority stays some way ahead of the highest
block that was used. What no request comes near stays unreal, and takes no memory.
"""

import contextlib
import ctypes
import math
import mmap
import os
import sys
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

AHEAD_BYTES = 64 << 20  # of all arrays together; huge pages may make it more
_STRETCH_BYTES = 2 << 20  # of one array in one call: the size of a huge page
_MADV_POPULATE_WRITE = 23  # Linux 5.14; writes nothing, so it is safe beside whoever does
_LESS_URGENT = 5  # no less: it holds the lock of the process's memory map meanwhile

_Array = npt.NDArray[np.generic]


def unreal(shape: tuple[int, ...], kind: npt.DTypeLike) -> _Array:
    """An array of zeros in a mapping of its own, of which nothing takes memory before it is used.

    An allocator may hand on memory that was used before, which it then has to clear: all at once.
    """
    count = math.prod(shape)
    if sys.platform != "linux" or not count:
        return np.zeros(shape, kind)
    memory = mmap.mmap(-1, count * np.dtype(kind).itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, kind).reshape(shape)


class TouchAhead:
    """Of arrays [blocks, ...] those blocks that come next. Where the system cannot, nothing.

    A thread does it, and is there as long as there is something to do.
    """

    def __init__(self, arrays: Sequence[_Array], *, ahead_bytes: int = AHEAD_BYTES) -> None:
        self._arrays = list(arrays)
        self._blocks = len(arrays[0])
        self._margin = -(-ahead_bytes // sum(array[0].nbytes for array in arrays))
        self._goal = 0  # blocks below it are to be real; only grows
        self._done = 0  # blocks below it are
        self._able = True  # the system is
        self._closed = False
        self._thread: threading.Thread | None = None

    def used(self, block: int) -> None:
        """The highest block that a step uses. Returns at once."""
        self._goal = max(self._goal, min(block + 1 + self._margin, self._blocks))
        idle = self._thread is None or not self._thread.is_alive()
        if idle and self._able and not self._closed and self._done < self._goal:
            self._thread = threading.Thread(target=self._run, name="penstock-touch", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let go of the arrays, once what is under way is done. Idempotent."""
        self._closed = True
        if self._thread is not None:
            self._thread.join()
        self._arrays = []

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # where priority is not of a thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LESS_URGENT)
        while self._able and not self._closed and self._done < self._goal:
            self._able = self._stretch()

    def _stretch(self) -> bool:
        """The next blocks of every array; False: the system does not know how."""
        least = min(array[0].nbytes for array in self._arrays)
        end = min(self._done + -(-_STRETCH_BYTES // least), self._blocks)
        for array in self._arrays:
            if self._closed:
                return True
            if not _populate(array[self._done : end]):
                return False
        self._done = end
        return True


def _populate(part: _Array) -> bool:
    """Make the whole pages within a part real; False: this system does not do that."""
    if sys.platform != "linux":
        return False
    page = os.sysconf("SC_PAGESIZE")
    first = -(-part.ctypes.data // page) * page
    length = (part.ctypes.data + part.nbytes - first) // page * page
    if length <= 0:
        return True
    madvise = ctypes.CDLL(None).madvise  # lets go of the interpreter's lock meanwhile
    return not madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_POPULATE_WRITE)
