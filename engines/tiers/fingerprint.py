"""Digests of what computes KV contents, so that none is ever taken for another's.

Weights are digested whole. Sizes and times would do until somebody copies a tuned model over the
one it was tuned from with their times kept, and headers are then the same as well.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

_PART = 64 << 20  # digested by itself, so that several cores share a file


def fingerprint(*parts: str) -> bytes:
    """16 bytes: equal when and only when all parts are."""
    lengths = b"".join(len(part.encode()).to_bytes(4, "little") + part.encode() for part in parts)
    return blake2b(lengths, digest_size=16, person=b"penstock-finger").digest()


def weights_digest(files: Iterable[Path]) -> str:
    """A digest of the contents of files and of their names. Raises OSError."""
    parts = [part for path in files for part in _parts(path)]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        digests = pool.map(_digest, parts)
        return fingerprint(
            *(
                f"{path.name} {start} {digest}"
                for (path, start), digest in zip(parts, digests, strict=True)
            )
        ).hex()


def _parts(path: Path) -> Iterator[tuple[Path, int]]:
    for start in range(0, max(path.stat().st_size, 1), _PART):
        yield path, start


def _digest(part: tuple[Path, int]) -> str:
    path, start = part
    digest = blake2b()
    with path.open("rb") as file:
        file.seek(start)
        left = _PART
        while left and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()
