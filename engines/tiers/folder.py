"""The block files of one worker, in a folder that it holds: written, read, verified, removed.

    manifest        written whole, fsynced, renamed: the order in which blocks may go
    <name>.kv       written to <name>.tmp and renamed; not fsynced, since a cache may forget

What is there at the start is what the folder says; the manifest gives the order. A process that is
killed at any point leaves a temporary file, which is removed, and nothing else; what a machine that
loses its power leaves is found when it is read.
"""

import logging
import os
import re
import stat
from contextlib import suppress

import numpy as np

from engines.step import BlockBytes
from engines.tiers.block_file import HEAD_BYTES, Corrupt, check, head_of
from engines.tiers.places import Place
from kvcache.manifest import manifest_bytes, read_manifest, write_manifest
from kvcache.naming import BlockName

_log = logging.getLogger(__name__)
_BLOCK = re.compile(r"([0-9a-f]{32})\.kv")
_LEFT = re.compile(r"[0-9a-f]{32}\.tmp|manifest\.tmp")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # no FIFO holds us up
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MANIFEST = "manifest"


class BlockFolder:
    """Blocks of `block_bytes` each, computed by what `fingerprint` stands for (16 bytes)."""

    def __init__(self, place: Place, fingerprint: bytes, block_bytes: int) -> None:
        self._place = place
        self._fd = place.fd
        self._fingerprint = fingerprint
        self._block_bytes = block_bytes

    def list_blocks(self, most: int) -> list[BlockName]:
        """The names of what is there, those that may go first first; at most so many stay.

        Removes what a killed process has left. What is not ours is left alone, and said.
        """
        there: dict[BlockName, int] = {}
        foreign = 0
        with os.scandir(self._fd) as entries:
            for entry in entries:
                block = _BLOCK.fullmatch(entry.name)
                about = entry.stat(follow_symlinks=False)
                if block and stat.S_ISREG(about.st_mode) and about.st_size == self.file_bytes:
                    there[BlockName(bytes.fromhex(block[1]))] = about.st_mtime_ns
                elif block or _LEFT.fullmatch(entry.name):
                    self._unlink(entry.name)
                else:
                    foreign += entry.name not in (_MANIFEST, "lock")
        if foreign:
            _log.warning("%s: %d files that are not ours are left alone", self._place.path, foreign)
        names = self._in_order(there, most)
        for name in names[: max(len(names) - most, 0)]:
            self.remove(name)
        return names[max(len(names) - most, 0) :]

    def read(self, name: BlockName) -> BlockBytes:
        """The content of a block. Raises Corrupt, and OSError (FileNotFoundError) for none."""
        fd = os.open(_file(name), _READ, dir_fd=self._fd)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode) or about.st_size != self.file_bytes:
                raise Corrupt(f"it has {about.st_size} bytes instead of {self.file_bytes}")
            head = bytearray(HEAD_BYTES)
            content = np.empty(self._block_bytes, np.uint8)
            _fill(fd, memoryview(head))
            _fill(fd, content.data)
        finally:
            os.close(fd)
        check(self._fingerprint, name, bytes(head), content)
        return content

    def write(self, name: BlockName, content: BlockBytes) -> None:
        """Put a block there, whole or not at all. Raises OSError."""
        head = head_of(self._fingerprint, name, content)
        self._replace(
            _file(name), f"{name.hex()}.tmp", (memoryview(head), content.data), sync=False
        )

    def remove(self, name: BlockName) -> None:
        """Take a block away, if it is there."""
        self._unlink(_file(name))

    def write_order(self, names: tuple[BlockName, ...]) -> None:
        """Write the manifest. Raises OSError."""
        data = write_manifest(self._fingerprint, names)
        self._replace(_MANIFEST, f"{_MANIFEST}.tmp", (memoryview(data),), sync=True)

    def close(self) -> None:
        """Let another process have the folder."""
        self._place.release()

    @property
    def file_bytes(self) -> int:
        """The size of each block's file."""
        return file_bytes(self._block_bytes)

    def _in_order(self, there: dict[BlockName, int], most: int) -> list[BlockName]:
        """As the manifest has them; what is not in it was written since, and so goes last."""
        known = [
            name for name in dict.fromkeys(self._read_order(max(most, len(there)))) if name in there
        ]
        since = there.keys() - set(known)
        return known + sorted(since, key=lambda name: there[name])

    def _read_order(self, most: int) -> list[BlockName]:
        try:
            fd = os.open(_MANIFEST, _READ, dir_fd=self._fd)
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.warning("%s: the manifest is not used: %s", self._place.path, error.strerror)
            return []
        with os.fdopen(fd, "rb") as file:
            data = file.read(manifest_bytes(2 * most) + 1)  # a longer one is not believed
        try:
            return read_manifest(data, self._fingerprint)
        except ValueError as error:
            _log.warning("%s: the manifest is not used: %s", self._place.path, error)
            return []

    def _replace(
        self, name: str, temporary: str, parts: tuple[memoryview, ...], *, sync: bool
    ) -> None:
        self._unlink(temporary)
        fd = os.open(temporary, _WRITE, 0o600, dir_fd=self._fd)
        try:
            for part in parts:
                _write_all(fd, part)
            if sync:
                os.fsync(fd)
        except OSError:
            self._unlink(temporary)
            raise
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        if sync:
            os.fsync(self._fd)

    def _unlink(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._fd)


def file_bytes(block_bytes: int) -> int:
    """What a block of so many bytes takes on the disk."""
    return HEAD_BYTES + block_bytes


def _file(name: BlockName) -> str:
    return f"{name.hex()}.kv"


def _fill(fd: int, left: memoryview) -> None:
    while left:
        count = os.readv(fd, [left])
        if not count:
            raise Corrupt("it ends early")
        left = left[count:]


def _write_all(fd: int, left: memoryview) -> None:
    while left:
        left = left[os.write(fd, left) :]
