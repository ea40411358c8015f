"""The file of one KV block: what it says of itself, and whether that is true. Pure.

    magic 8 | fingerprint 16 | name 16 | bytes of the content 8 | blake2b-256 32 | content

The digest is over all the rest, so a torn write, a bit that has flipped, a file that was renamed
and one of other weights all fail the same check.
"""

import struct
from hashlib import blake2b

from engines.step import BlockBytes
from kvcache.naming import BlockName

_MAGIC = b"PSTKBLK1"
_FIELDS = struct.Struct("<8s16s16sQ")
_DIGEST_BYTES = 32
HEAD_BYTES = _FIELDS.size + _DIGEST_BYTES


class Corrupt(Exception):  # noqa: N818 - what a file is
    """A file is not what was written under its name."""


def head_of(fingerprint: bytes, name: BlockName, content: BlockBytes) -> bytes:
    """What stands before the content."""
    fields = _FIELDS.pack(_MAGIC, fingerprint, name, content.nbytes)
    return fields + _digest(fields, content)


def check(fingerprint: bytes, name: BlockName, head: bytes, content: BlockBytes) -> None:
    """Raise Corrupt unless this is what was written under that name."""
    fields = head[: _FIELDS.size]
    if len(head) != HEAD_BYTES or fields != _FIELDS.pack(_MAGIC, fingerprint, name, content.nbytes):
        raise Corrupt("it says it is another block, or of another model or version")
    if head[_FIELDS.size :] != _digest(fields, content):
        raise Corrupt("its content has changed")


def _digest(fields: bytes, content: BlockBytes) -> bytes:
    digest = blake2b(fields, digest_size=_DIGEST_BYTES, person=b"penstock-block")
    digest.update(content.data)  # without the interpreter's lock, where it is long
    return digest.digest()
