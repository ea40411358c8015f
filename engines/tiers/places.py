"""Folders for files that only their owner may read, each held by one process: found, or made.

    <root>/<fingerprint>/<number>/lock

No name is followed if it is a symlink, and every step is taken from a folder that is open already:
nobody can put another one in its place between a check and its use.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_MOST = 64  # processes with one fingerprint on one machine
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_OURS = re.compile(r"[0-9a-f]{32}\.(kv|tmp)|manifest|manifest\.tmp")  # no other is removed


class UnsafeFolder(Exception):  # noqa: N818 - what a folder is
    """A folder is not its owner's alone: others could read what is in it, or put things there."""


@dataclass(frozen=True, slots=True)
class Place:
    """An open folder, held until it is released."""

    path: Path
    fd: int
    lock: int

    def release(self) -> None:
        """Let others have it."""
        os.close(self.fd)
        os.close(self.lock)


def take_place(root: Path, fingerprint: bytes) -> Place:
    """The first folder of a fingerprint that nobody holds.

    Raises UnsafeFolder, and OSError where the file system gives none.
    """
    if not root.is_symlink():  # else opening it says so
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    top = _entered(str(root), None)
    try:
        middle = _made(fingerprint.hex(), top)
    finally:
        os.close(top)
    try:
        for number in range(_MOST):
            fd = _made(str(number), middle)
            lock = _locked(fd)
            if lock is not None:
                return Place(root / fingerprint.hex() / str(number), fd, lock)
            os.close(fd)
    finally:
        os.close(middle)
    raise OSError(f"{_MOST} processes hold all folders of {root / fingerprint.hex()}")


def remove_abandoned(root: Path, most_bytes: int) -> int:
    """Remove what nobody holds until the rest has at most so many bytes; returns those removed.

    The longest unused goes first. It is what other models, weights and versions have left.
    """
    left = sorted(_abandoned(root))
    excess = sum(size for _, size, _ in left) - most_bytes
    removed = 0
    for _, size, path in left:
        if removed < excess and _removed(root, path):
            removed += size
    return removed


def _abandoned(root: Path) -> Iterator[tuple[int, int, Path]]:
    """When each was last used, its bytes, and where it is."""
    for path in sorted(root.glob("*/*")):
        if _FINGERPRINT.fullmatch(path.parent.name) and path.name.isdecimal():
            with _held(root, path) as fd:
                if fd is not None:
                    sizes = [entry.stat(follow_symlinks=False).st_size for entry in os.scandir(fd)]
                    yield os.fstat(fd).st_mtime_ns, sum(sizes), path


def _removed(root: Path, path: Path) -> bool:
    with _held(root, path) as fd:
        if fd is None:
            return False
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if _OURS.fullmatch(entry.name)]
        for name in names:
            os.unlink(name, dir_fd=fd)
        return True  # folder and lock stay: another process may be at them just now


@contextmanager
def _held(root: Path, path: Path) -> Iterator[int | None]:
    """A folder, open and locked; None where somebody else has it, or it is none of ours."""
    opened: list[int] = []
    try:
        try:
            opened.append(_entered(str(root), None))
            opened.append(_entered(path.parent.name, opened[-1]))
            opened.append(_entered(path.name, opened[-1]))
            lock = _locked(opened[-1])
        except (OSError, UnsafeFolder):
            lock = None
        if lock is not None:
            opened.append(lock)
        yield None if lock is None else opened[2]
    finally:
        for fd in opened:
            os.close(fd)


def _made(name: str, inside: int) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=inside)
    return _entered(name, inside)


def _entered(name: str, inside: int | None) -> int:
    try:
        fd = os.open(name, _OPEN, dir_fd=inside)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise UnsafeFolder(f"{name} is a symlink, or no folder at all") from None
        raise
    about = os.fstat(fd)
    if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077:
        os.close(fd)
        raise UnsafeFolder(f"{name} is not its owner's alone: chown it to this user and chmod 700")
    return fd


def _locked(fd: int) -> int | None:
    lock = os.open("lock", _LOCK, 0o600, dir_fd=fd)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        os.close(lock)
        raise
    return lock
