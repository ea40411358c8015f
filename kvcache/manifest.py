"""The manifest of a folder of blocks: their names in the order in which they may go. Pure.

    magic 8 | fingerprint 16 | count 4, little-endian | names 16 each | blake2b-128 of all before

It says nothing that the files do not say themselves, but for their order.
"""

from collections.abc import Sequence
from hashlib import blake2b

from kvcache.naming import BlockName

_MAGIC = b"PSTKMAN1"
_NAME_BYTES = 16
_HEAD = len(_MAGIC) + _NAME_BYTES + 4


def write_manifest(fingerprint: bytes, names: Sequence[BlockName]) -> bytes:
    """The bytes of a manifest."""
    body = _MAGIC + fingerprint + len(names).to_bytes(4, "little") + b"".join(names)
    return body + _digest(body)


def read_manifest(data: bytes, fingerprint: bytes) -> list[BlockName]:
    """The names in a manifest. Raises ValueError for what is torn, foreign or of another model."""
    body, digest = data[:-_NAME_BYTES], data[-_NAME_BYTES:]
    if not data.startswith(_MAGIC) or len(body) < _HEAD:
        raise ValueError("no manifest of this version")
    if _digest(body) != digest:
        raise ValueError("torn or changed")
    if body[len(_MAGIC) : len(_MAGIC) + _NAME_BYTES] != fingerprint:
        raise ValueError("of another model")
    names = body[_HEAD:]
    if len(names) != _NAME_BYTES * int.from_bytes(body[_HEAD - 4 : _HEAD], "little"):
        raise ValueError("another number of names than it says")
    return [
        BlockName(names[start : start + _NAME_BYTES]) for start in range(0, len(names), _NAME_BYTES)
    ]


def manifest_bytes(blocks: int) -> int:
    """The size of a manifest of so many blocks."""
    return _HEAD + _NAME_BYTES * (blocks + 1)


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=_NAME_BYTES, person=b"penstock-manif").digest()
