"""How much memory this process may still take: the machine's, within its container's limit."""

import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
_UNKNOWN_BYTES = 4 << 30  # where there is no /proc: a laptop that runs a model has as much


def free_memory_bytes() -> int:
    """The smaller of what the machine has available and what the control group leaves."""
    rooms = [_machine_bytes()]
    for limit_file, used_file in _CGROUPS:
        limit, used = _number(limit_file), _number(used_file)
        if limit is not None and used is not None:
            rooms.append(max(0, limit - used))
    return min(rooms)


def _machine_bytes() -> int:
    try:
        match = re.search(r"MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(encoding="ascii"))
    except OSError:
        return _UNKNOWN_BYTES
    return int(match[1]) << 10 if match else _UNKNOWN_BYTES


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or the word "max"
        return None
