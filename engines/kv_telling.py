"""Gathers what changes in the tiers of a stepped engine's KV cache, to be told step by step."""

from engines.kv_changes import Gathering, KvChange
from engines.step import BlockBytes
from kvcache.events import BlockEvent, BlockStored
from kvcache.naming import BlockName
from kvcache.pool import BlockPool
from kvcache.tiers import DISK, HOST, Tiers


class KvTelling:
    """Hears of everything there is now, and from now on of every change."""

    def __init__(self, pool: BlockPool, tiers: Tiers[BlockBytes] | None) -> None:
        self._gathered = (Gathering(), Gathering(), Gathering())
        pool.subscribe(self._hear)
        if tiers is not None:
            tiers.tell(self._hear_tier)
            for tier in (HOST, DISK):
                for name in tiers.names(tier):
                    self._gathered[tier].store(name)

    def take(self) -> list[KvChange]:
        """What has changed since the last time."""
        changes = (gathered.take(tier) for tier, gathered in enumerate(self._gathered))
        return [change for change in changes if change is not None]

    def _hear(self, event: BlockEvent) -> None:
        if isinstance(event, BlockStored):
            self._gathered[0].store(event.name)
        else:
            self._gathered[0].remove(event.name)

    def _hear_tier(self, tier: int, name: BlockName, *, there: bool) -> None:
        if there:
            self._gathered[tier].store(name)
        else:
            self._gathered[tier].remove(name)
