"""Lets go of the pages of a mapped graph: once weights are packed, hardly one is read again.

They count as this process's memory, and there would be all weights twice. What is read again, as
rows of embeddings, comes back from the file.
"""

import ctypes
import sys
from pathlib import Path

_MADV_DONTNEED = 4  # of Linux; on a mapping that is read only it loses nothing


def let_go(file: Path) -> None:
    """Drop the resident pages of every read-only mapping of a file; elsewhere than Linux, none."""
    if sys.platform != "linux":
        return
    system = ctypes.CDLL(None)
    for start, end in _mappings(file):
        system.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def _mappings(file: Path) -> list[tuple[int, int]]:
    name = str(file.absolute())
    found = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        place, mode, *_ = line.split(maxsplit=5)
        if line.endswith(f" {name}") and mode.startswith("r--"):
            start, _, end = place.partition("-")
            found.append((int(start, 16), int(end, 16)))
    return found
