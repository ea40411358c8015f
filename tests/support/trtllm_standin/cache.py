"""The stand-in's KV blocks: a prefix cache over chains of tokens, with events as documented."""

from collections import OrderedDict
from hashlib import blake2b

Root = tuple[str | None, int]


class Cache:
    """Blocks are shared by equal prefixes of one root; unheld ones are evicted oldest first.

    A root is a salt and the number of a LoRA adapter, which events do not tell.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.events: list[dict] = []
        self._held: dict[int, int] = {}
        self._unheld: OrderedDict[int, None] = OrderedDict()
        self._number = 0
        self._tell({"type": "created", "num_blocks_per_cache_level": [num_blocks, 0]})

    @property
    def used(self) -> int:
        return len(self._held)

    def cached(self, tokens: list[int], root: Root) -> int:
        """Tokens of the prompt that need not be computed; never all of them."""
        known = 0
        for block in self._chain(tokens[: len(tokens) - 1], root):
            if block not in self._held and block not in self._unheld:
                break
            known += self.block_size
        return known

    def hold(self, tokens: list[int], root: Root, held: list[int]) -> None:
        """Hold the full blocks of a sequence; tell of those that are new."""
        parent = held[-1] if held else None
        for index, block in enumerate(self._chain(tokens, root)):
            if index < len(held):
                continue
            known = block in self._held or block in self._unheld
            self._unheld.pop(block, None)
            self._held[block] = self._held.get(block, 0) + 1
            held.append(block)
            if not known:
                self._make_room()
                start = index * self.block_size
                self._stored(parent, block, tokens[start : start + self.block_size], root[0])
            parent = block

    def free(self, held: list[int]) -> None:
        """Hold them no more; they stay findable for a while."""
        for block in held:
            self._held[block] -= 1
            if not self._held[block]:
                del self._held[block]
                self._unheld[block] = None
        held.clear()

    def partial(self) -> None:
        """Tell of a block that is not full, and of its end: consumers must not trip over it."""
        block = {**_block(99, [1], None), "tokens": [{"type": "unique_token", "token_id": 1}]}
        self._tell({"type": "stored", "parent_hash": None, "blocks": [block]})
        self._tell({"type": "removed", "block_hashes": [99]})

    def gap(self) -> None:
        """Lose an event."""
        self._number += 1

    def _make_room(self) -> None:
        while len(self._held) + len(self._unheld) > self.num_blocks and self._unheld:
            block, _ = self._unheld.popitem(last=False)
            self._tell({"type": "removed", "block_hashes": [block]})

    def _stored(self, parent, block, tokens, salt) -> None:
        blocks = [_block(block, tokens, salt)]
        self._tell({"type": "stored", "parent_hash": parent, "blocks": blocks})

    def _tell(self, data: dict) -> None:
        self.events.append({"event_id": self._number, "window_size": 4096, "data": data})
        self._number += 1

    def _chain(self, tokens: list[int], root: Root) -> list[int]:
        chain, digest = [], repr(root).encode()
        for end in range(self.block_size, len(tokens) + 1, self.block_size):
            block = tokens[end - self.block_size : end]
            digest = blake2b(digest + repr(block).encode(), digest_size=8).digest()
            chain.append(int.from_bytes(digest, "little", signed=True))  # as it may be told
        return chain


def _block(block: int, tokens: list[int], salt: str | None) -> dict:
    return {
        "type": "stored_block",
        "block_hash": block,
        "tokens": [
            {"type": "unique_token", "token_id": token, "token_extra_id": 0} for token in tokens
        ],
        "cache_level": 0,
        "priority": 35,
        "cache_salt": salt,
    }
