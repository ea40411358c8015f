"""What an engine tells of its KV cache: the full blocks that can be reused, by name. Pure.

Names are those of kvcache.naming: hashes that are equal in every engine of one model and block size
whenever the tokens up to the end of the block are. No token of a prompt is in them, or travels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

NAME_BYTES = 16


@dataclass(frozen=True, slots=True)
class KvChange:
    """Names that are gone, and names that can be found from now on: no name is in both."""

    removed: tuple[bytes, ...] = ()
    stored: tuple[bytes, ...] = ()
    tier: int = 0  # 0: where the engine computes; further ones are slower
    cleared: bool = False  # first of all, nothing that was told before holds any more


KvListener = Callable[[KvChange], None]


@runtime_checkable
class KvSource(Protocol):
    """An engine that tells which blocks it has."""

    @property
    def kv_namespace(self) -> bytes:
        """What its names are in (kvcache.naming.namespace); empty: it tells nothing."""

    def follow_kv(self, listener: KvListener) -> None:
        """Tell `listener` of what there is, once it is known, and then of every change.

        It is called on the event loop. There is one listener in the life of an engine; a second
        one raises RuntimeError. Until there is one, an engine of ours computes no name.
        """


class Gathering:
    """The net effect of changes that follow each other, each true where it was made."""

    def __init__(self) -> None:
        self._removed: dict[bytes, None] = {}  # in order, which sets do not keep
        self._stored: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._removed) + len(self._stored)

    def store(self, name: bytes) -> None:
        """A name that was not there is."""
        if name in self._removed:
            del self._removed[name]  # it is back before anybody heard that it was gone
        else:
            self._stored[name] = None

    def remove(self, name: bytes) -> None:
        """A name that was there is gone."""
        if name in self._stored:
            del self._stored[name]
        else:
            self._removed[name] = None

    def take(self, tier: int = 0) -> KvChange | None:
        """What has changed since the last time; None if nothing."""
        if not self:
            return None
        change = KvChange(tuple(self._removed), tuple(self._stored), tier)
        self._removed.clear()
        self._stored.clear()
        return change
