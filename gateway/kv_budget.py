"""How many KV blocks an engine gets, and why: a value that can be printed."""

from dataclasses import dataclass

from engines.errors import ModelRejected

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class KvNeed:
    """What would be useful: more blocks than these can never be filled."""

    token_bytes: int  # keys and values of one token in all layers
    block_size: int  # tokens
    max_running: int  # sequences
    context: int  # tokens of the longest sequence


@dataclass(frozen=True, slots=True)
class KvBudget:
    """The decision: how many blocks, and the longest context they can hold."""

    blocks: int
    context: int
    block_bytes: int
    need: KvNeed

    def __str__(self) -> str:
        held = self.blocks * self.need.block_size
        text = (
            f"{self.blocks} blocks of {self.need.block_size} tokens = {held} tokens,"
            f" {self.blocks * self.block_bytes / _MIB:.1f} MiB"
        )
        if self.context < self.need.context:
            text += f"; context cut from {self.need.context} to {self.context} (--kv-cache-memory)"
        return text


def plan_kv(need: KvNeed, *, asked_bytes: int, room_bytes: int) -> KvBudget:
    """The blocks that `asked_bytes` (0: all the room there is) give, at most what is useful.

    Raises ModelRejected when not even a few tokens fit.
    """
    block_bytes = max(1, need.token_bytes * need.block_size)
    budget = asked_bytes or room_bytes
    useful = need.max_running * -(-need.context // need.block_size)
    blocks = min(budget // block_bytes, useful)
    if blocks < 1:
        raise ModelRejected(
            f"the KV cache gets {budget} bytes, less than one block of {need.block_size} tokens"
            f" ({block_bytes} bytes); raise --kv-cache-memory or lower --block-size"
        )
    return KvBudget(blocks, min(need.context, blocks * need.block_size), block_bytes, need)
