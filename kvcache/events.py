"""What a pool tells about its reusable blocks, in order: enough to mirror the cache elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass

from kvcache.naming import BlockName


@dataclass(frozen=True, slots=True)
class BlockStored:
    """A full block became findable."""

    name: BlockName
    parent: BlockName  # the name of the block before it, or the root of its namespace
    tokens: bytes  # little-endian int32


@dataclass(frozen=True, slots=True)
class BlockRemoved:
    """A findable block was evicted; its bytes stay until somebody writes there."""

    name: BlockName
    block: int | None = None  # which it was, where the blocks are our own


BlockEvent = BlockStored | BlockRemoved
Listener = Callable[[BlockEvent], None]
