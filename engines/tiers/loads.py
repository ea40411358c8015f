"""What the tiers of a stepped engine's KV cache tell an operator. Pure, and O(1)."""

from engines.api import TierLoad
from engines.scheduler import Scheduler
from kvcache.tiers import DEVICE, DISK, HOST, TierCounters


def tier_loads(scheduler: Scheduler, block_bytes: int) -> tuple[TierLoad, ...]:
    """The blocks that can be found where the engine computes, held or not, then slower tiers."""
    pool, tiers = scheduler.pool, scheduler.tiers
    device = TierLoad(
        DEVICE, pool.cached, pool.cached * block_bytes, stored=pool.stored,
        evicted=pool.stored - pool.cached, hits=scheduler.counters.device_hits,
    )  # fmt: skip
    if tiers is None:
        return (device,)
    done, host, disk = tiers.counters, tiers.host_blocks, len(tiers.disk)
    return device, _host(done, host, host * block_bytes), _disk(done, disk, disk * block_bytes)


def _host(done: TierCounters, blocks: int, size: int) -> TierLoad:
    return TierLoad(
        HOST, blocks, size, stored=done.saved + done.fetched, evicted=done.host_evicted,
        hits=done.restored, restored=done.restored,
    )  # fmt: skip


def _disk(done: TierCounters, blocks: int, size: int) -> TierLoad:
    return TierLoad(
        DISK, blocks, size, stored=done.written, evicted=done.disk_evicted, hits=done.disk_hits,
        restored=done.fetched, failures=done.corrupt, dropped=done.dropped,
    )  # fmt: skip
