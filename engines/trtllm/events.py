"""Mirrors the KV cache of a TensorRT-LLM engine, in our names, from the events it tells. Pure.

Its hashes cannot be computed by anybody else, so they are kept only to know what a removal means:

    engine hash  -> our name           what it stores is named by our own chain of tokens

A gap in the ids of a rank is lost state: all is forgotten (`Cleared`), and what is stored from then
on below a block that is known again is named. Too little is told then, never something wrong.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.trtllm.salts import read_salt
from kvcache.events import BlockRemoved, BlockStored
from kvcache.naming import BlockName, chain, root_name, within

_UINT64 = (1 << 64) - 1
_Hash = int | str


@dataclass(frozen=True, slots=True)
class Cleared:
    """Nothing that was told before holds any more."""

    generation: int


MirrorEvent = BlockStored | BlockRemoved | Cleared


class EventMirror:
    """Turns the engine's events into ours, within `namespace` as kvcache.naming divides it."""

    def __init__(self, namespace: bytes, block_size: int) -> None:
        self.namespace = namespace
        self._block_size = block_size
        self._window: int | None = None  # the largest: the one a whole prefix lives in
        self._last: dict[int, int] = {}  # rank -> its last event id
        self._names: dict[tuple[int, _Hash], BlockName] = {}  # by rank and engine hash
        self._holders: Counter[BlockName] = Counter()  # ranks differ in what they hold
        self.generation = 0
        self.num_blocks: int | None = None  # on the device, once it was told

    def read(self, event: Mapping[str, Any]) -> list[MirrorEvent]:
        """What an event means for us."""
        rank, number = int(event.get("attention_dp_rank") or 0), int(event["event_id"])
        told: list[MirrorEvent] = []
        last = self._last.get(rank)
        if last is not None and number != last + 1:
            told.append(self.clear())
        self._last[rank] = number
        data, window = event["data"], event.get("window_size")
        if data["type"] == "created":
            self._created(data, window)
        elif window is None or self._window is None or window == self._window:
            if data["type"] == "stored":
                told += self._stored(rank, data)
            elif data["type"] == "removed":
                told += self._removed(rank, data["block_hashes"])
        return told

    @property
    def names(self) -> tuple[BlockName, ...]:
        """Every block that there is now."""
        return tuple(self._holders)

    def clear(self) -> Cleared:
        """Forget all blocks."""
        self._names.clear()
        self._holders.clear()
        self.generation += 1
        return Cleared(self.generation)

    def _created(self, data: Mapping[str, Any], window: int | None) -> None:
        if self._window is None or (window is not None and window > self._window):
            self._window = window
            self.num_blocks = int(data["num_blocks_per_cache_level"][0])

    def _stored(self, rank: int, data: Mapping[str, Any]) -> Iterator[BlockStored]:
        blocks: Sequence[Mapping[str, Any]] = data["blocks"]
        parent = self._parent(rank, data, blocks)
        for block in blocks:
            if parent is None or not self._is_plain(block):
                return  # partial, or not tokens alone: neither it nor what follows has a name
            ids = [token["token_id"] for token in block["tokens"]]
            tokens = np.asarray(ids, dtype="<i4").tobytes()
            name = chain(parent, tokens)
            key = (rank, _key(block["block_hash"]))
            if self._names.get(key) != name:
                yield from self._hold(key, BlockStored(name, parent, tokens))
            parent = name

    def _hold(self, key: tuple[int, _Hash], stored: BlockStored) -> Iterator[BlockStored]:
        self._names[key] = stored.name
        self._holders[stored.name] += 1
        if self._holders[stored.name] == 1:
            yield stored

    def _removed(self, rank: int, hashes: Sequence[_Hash]) -> Iterator[BlockRemoved]:
        for each in hashes:
            name = self._names.pop((rank, _key(each)), None)
            if name is None:
                continue  # a partial block, or one from before a gap
            self._holders[name] -= 1
            if not self._holders[name]:
                del self._holders[name]
                yield BlockRemoved(name)

    def _parent(
        self, rank: int, data: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]
    ) -> BlockName | None:
        """The name before the first block; None where it cannot be named."""
        salts = {block.get("cache_salt") for block in blocks}
        if len(salts) != 1:
            return None
        try:
            salt, adapter = read_salt(salts.pop() or "")
        except ValueError:
            return None  # not a salt of ours
        if (data.get("lora_name") or adapter) != adapter:
            return None  # nor its adapter
        if data.get("parent_hash") is not None:
            return self._names.get((rank, _key(data["parent_hash"])))
        return root_name(within(self.namespace, salt=salt, adapter=adapter))

    def _is_plain(self, block: Mapping[str, Any]) -> bool:
        tokens = block["tokens"]
        extra = any(token.get("token_extra_id") for token in tokens)
        return len(tokens) == self._block_size and not extra and not block.get("mm_keys")


def _key(told: _Hash) -> _Hash:
    """One form of a hash that is told signed or unsigned."""
    return told & _UINT64 if isinstance(told, int) and -(1 << 63) <= told <= _UINT64 else told
