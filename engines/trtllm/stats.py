"""One record of TensorRT-LLM's iteration statistics, as far as it is there. Pure."""

from collections.abc import Mapping
from typing import Any

from engines.self_batching.stats import EngineStats


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
