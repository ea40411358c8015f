"""How much memory this process may still take: the machine's, within its container's limit."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNKNOWN_BYTES = 4 << 30  # where there is no /proc: a laptop that runs a model has as much
_MACHINE = "what the machine has available"
_GROUP = "what the memory limit of this control group leaves"


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Bytes, and what bounds them, in words."""

    bytes: int
    source: str


def free_memory(root: Path = Path("/")) -> FreeMemory:
    """The least of what the machine has available and what each control group above us leaves."""
    rooms = [FreeMemory(_machine_bytes(root), _MACHINE)]
    for group, limit, used, cache in _groups(root):
        most, taken = _number(group / limit), _number(group / used)
        if most is not None and taken is not None:
            held = taken - _reclaimable(group / "memory.stat", cache)
            rooms.append(FreeMemory(max(0, most - held), _GROUP))
    return min(rooms, key=lambda room: room.bytes)


def _machine_bytes(root: Path) -> int:
    text = _text(root / "proc/meminfo")
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(match[1]) << 10 if match else _UNKNOWN_BYTES


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Our groups, from the innermost out, with their files and their name for idle file pages.

    In a container the path may be the host's, of which only the end of the tree is mounted: the
    mount itself is looked at in any case.
    """
    top = root / "sys/fs/cgroup"
    for line in ["0::/", "0:memory:/", *_text(root / "proc/self/cgroup").splitlines()]:
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        within = PurePosixPath(path.lstrip("/"))
        if not controllers:
            for group in (within, *within.parents):
                yield top / group, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            for group in (within, *within.parents):
                yield (
                    top / "memory" / group,
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_inactive_file",
                )


def _reclaimable(stat: Path, name: str) -> int:
    """Pages of files that nobody has used lately count as used, and are given up when asked."""
    match = re.search(rf"^{name} (\d+)$", _text(stat), re.MULTILINE)
    return int(match[1]) if match else 0


def _number(file: Path) -> int | None:
    try:
        return int(_text(file))
    except ValueError:  # no such group, or the word "max"
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
