"""One record of TensorRT-LLM's iteration statistics, as far as it is there. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What one iteration told; versions differ in how much they tell."""

    iteration: int = 0
    queued: int = 0  # requests in its own queue
    blocks_used: int | None = None
    blocks_total: int | None = None


def read_stats(record: Mapping[str, Any]) -> EngineStats:
    """From a dict of `LLM.get_stats_async`."""
    batch = record.get("inflightBatchingStats") or {}
    cache = record.get("kvCacheStats") or {}
    queued = ("numQueuedContextRequests", "numQueuedGenRequests")
    return EngineStats(
        iteration=int(record.get("iter") or 0),
        queued=sum(int(batch.get(name) or 0) for name in queued),
        blocks_used=cache.get("usedNumBlocks"),
        blocks_total=cache.get("maxNumBlocks"),
    )
