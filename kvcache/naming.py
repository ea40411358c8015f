"""Names of full blocks, equal across replicas when and only when content and history are equal.

    h0 = H(namespace)        h_i = H(h_(i-1) || tokens of block i)
    at a turn, the block before stands in by        H'(h_(i-1) || namespace behind it)

H is blake2b with 128-bit digests: names cross process borders, where a forged collision would let
one tenant read another's cache. Inside one pool no hash is used at all (see prefix.py).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NewType

BlockName = NewType("BlockName", bytes)

_NAME_BYTES = 16
_TOKEN_BYTES = 4
_BLOCK = b"penstock-block"
_TURN = b"penstock-turn"
_SCHEME = b"penstock-kv-1"
_UNTURNED = _SCHEME + b"-unturned"


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a prompt leaves the namespace that it begins in: from `block` on it is in another.

    What is before can be found by all who begin there, what is behind only by those who turn into
    the same namespace at the same place of the same history.
    """

    block: int  # the first in the other namespace; 1 or more
    namespace: bytes


def namespace(*parts: bytes, turns: bool = True) -> bytes:
    """What a cache belongs to (model, block size, ...), so that no two lists of parts look alike.

    What a caller may share is within it (`within`). Without `turns` no prompt of it turns: so are
    caches of engines that know one salt for a whole prompt.
    """
    scheme = _SCHEME if turns else _UNTURNED
    return scheme + b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def has_turns(namespace: bytes) -> bool:
    """Whether prompts in a namespace may turn."""
    return not namespace.startswith(_UNTURNED)


def within(namespace: bytes, *, salt: bytes, adapter: str = "") -> bytes:
    """The part of a namespace that requests of one salt and one adapter share."""
    name = adapter.encode()
    return namespace + (len(name).to_bytes(4, "little") + name if name else b"") + salt


def root_name(namespace: bytes) -> BlockName:
    """The name before the first block of everything in a namespace (model, adapter, salt)."""
    return BlockName(blake2b(namespace, digest_size=_NAME_BYTES, person=b"penstock-root").digest())


def chain(parent: BlockName, tokens: bytes) -> BlockName:
    """The name of a block holding `tokens` (little-endian int32) right after `parent`."""
    return BlockName(blake2b(parent + tokens, digest_size=_NAME_BYTES, person=_BLOCK).digest())


def turned(parent: BlockName, namespace: bytes) -> BlockName:
    """What stands for the block before a turn in the names behind it."""
    return BlockName(blake2b(parent + namespace, digest_size=_NAME_BYTES, person=_TURN).digest())


def prompt_names(
    namespace: bytes, prompt: Sequence[int], block_size: int, turn: Turn | None = None
) -> list[BlockName]:
    """The names of the full blocks of a prompt, from its beginning.

    Raises ValueError for what is no token of any model: more than 31 bits.
    """
    try:
        tokens = struct.pack(f"<{len(prompt)}i", *prompt)  # twice as fast as numpy is with a tuple
    except struct.error:
        raise ValueError("a token of the prompt has more than 31 bits") from None
    size = block_size * _TOKEN_BYTES
    parent = root_name(namespace)
    names: list[BlockName] = []
    for end in range(size, len(tokens) + 1, size):
        if turn is not None and len(names) == turn.block:
            parent = turned(parent, turn.namespace)
        parent = chain(parent, tokens[end - size : end])
        names.append(parent)
    return names
