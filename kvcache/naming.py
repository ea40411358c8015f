"""Names of full blocks, equal across replicas when and only when content and history are equal.

    h0 = H(namespace)        h_i = H(h_(i-1) || tokens of block i)

H is blake2b with 128-bit digests: names cross process borders, where a forged collision would let
one tenant read another's cache. Inside one pool no hash is used at all (see prefix.py).
"""

from hashlib import blake2b
from typing import NewType

BlockName = NewType("BlockName", bytes)

_NAME_BYTES = 16


def namespace(*parts: bytes) -> bytes:
    """What a cache belongs to (model, block size, ...), so that no two lists of parts look alike.

    A salt may be appended to it.
    """
    return b"penstock-kv-1" + b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def root_name(namespace: bytes) -> BlockName:
    """The name before the first block of everything in a namespace (model, adapter, salt)."""
    return BlockName(blake2b(namespace, digest_size=_NAME_BYTES, person=b"penstock-root").digest())


def chain(parent: BlockName, tokens: bytes) -> BlockName:
    """The name of a block holding `tokens` (little-endian int32) right after `parent`."""
    digest = blake2b(parent, digest_size=_NAME_BYTES, person=b"penstock-block")
    digest.update(tokens)
    return BlockName(digest.digest())
