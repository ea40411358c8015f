"""Checks of the books of pool and scheduler: what must hold between any two calls."""

from collections import Counter

from engines.scheduler import Scheduler
from kvcache.pool import BlockPool


def audit_pool(pool: BlockPool, tables: dict) -> None:
    """Every block is accounted for exactly once; the index is whole (I1, I2, I5)."""
    held = Counter(block for table in tables.values() for block in table)
    free = list(pool._free)
    assert len(free) == len(set(free)) == pool.free, "a block is linked twice"
    for block in range(pool.num_blocks):
        assert pool.refs(block) == held[block], f"block {block}: {pool.refs(block)} refs"
        assert (held[block] == 0) == (block in set(free)), f"block {block} is lost"
    serials = {sealed.serial: block for block, sealed in pool._index}
    for block, sealed in pool._index:
        parent, tokens = sealed.key
        assert pool._index.find(parent, tokens) == block, "index and content disagree"
        before = _before(parent)
        assert before is None or before in serials, "a parent is gone before its child"
    order = {block: place for place, block in enumerate(free)}
    for block, sealed in pool._index:
        parent = _before(sealed.key[0])
        if parent is not None and block in order and serials[parent] in order:
            assert order[block] < order[serials[parent]], "a parent would be evicted first"


def _before(parent) -> int | None:
    """The serial of the block before; None before a first block."""
    if isinstance(parent, tuple):
        return parent[0]
    return None if isinstance(parent, bytes) else parent


def audiences(pool: BlockPool) -> dict[int, bytes]:
    """Who finds each sealed block: the namespace that its chain turned into last, or began in."""
    by_serial: dict[int, bytes] = {}
    found: dict[int, bytes] = {}
    for block, sealed in pool._index:
        parent = sealed.key[0]
        if isinstance(parent, bytes):
            seen = parent
        else:
            seen = parent[1] if isinstance(parent, tuple) else by_serial[parent]
        by_serial[sealed.serial] = found[block] = seen
    return found


def audit_scheduler(scheduler: Scheduler) -> None:
    """The pool's audit, and no block that two salts reach but those declared as shared (I4)."""
    tables = scheduler.tables()
    audit_pool(scheduler.pool, tables)
    findable = audiences(scheduler.pool)
    owner = {}
    for sequence in scheduler._running:
        request, size = sequence.request, scheduler.limits.block_size
        declared = 0 if request.shared is None else request.shared.tokens // size
        for index, block in enumerate(tables[request.id, sequence.choice]):
            salt = request.shared.salt if index < declared else request.cache_salt
            assert owner.setdefault(block, salt) == salt, "a block of two salts"
            assert findable.get(block, salt) == salt, "a block is found under another salt"
    assert scheduler.waiting.tokens == sum(len(each.log) for each in scheduler.waiting)


def assert_quiet(scheduler: Scheduler) -> None:
    """With no requests nothing is held, and nothing is remembered of the past (I13)."""
    assert scheduler.pool.free == scheduler.pool.num_blocks
    assert scheduler.running == len(scheduler.waiting) == scheduler.waiting.tokens == 0
    assert not scheduler._open
    assert not scheduler._running
    assert not scheduler._meter.service
    lanes = scheduler._lanes
    assert not lanes.stops.any()
    assert not any(lanes._occupant)
    assert not lanes.active().size
