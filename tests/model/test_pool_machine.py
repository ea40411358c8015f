"""The block pool against a naive model that keeps whole token lists instead of an index."""

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from kvcache.events import BlockRemoved, BlockStored
from kvcache.naming import chain, root_name
from kvcache.pool import BlockPool, OutOfBlocks
from tests.support.audit import audit_pool

SIZE = 2


class PoolMachine(RuleBasedStateMachine):
    """Tables are grown, sealed and released; the model knows which histories must be findable."""

    tables = Bundle("tables")

    @initialize(blocks=st.integers(1, 8))
    def build(self, blocks):
        self.pool = BlockPool(blocks, SIZE)
        self.content: dict[int, tuple[bytes, tuple[int, ...]]] = {}  # block -> its whole history
        self.held: dict[int, list[int]] = {}
        self.mirror: dict[bytes, BlockStored] = {}
        self.count = 0
        self.pool.subscribe(self._heard)

    def _heard(self, event):
        if isinstance(event, BlockRemoved):
            del self.mirror[event.name]
        else:
            assert event.parent in self.mirror or event.parent in map(root_name, (b"", b"salt"))
            self.mirror[event.name] = event

    @rule(target=tables, salt=st.sampled_from([b"", b"salt"]), tokens=st.lists(st.integers(0, 1)))
    def open_table(self, salt, tokens):
        """What the scheduler does with a prompt: match, share, take, then seal what is full."""
        array = np.array(tokens, np.int32)
        hit = self.pool.match(salt, array)
        for index, block in enumerate(hit):
            assert self.content[block] == (salt, tuple(tokens[: (index + 1) * SIZE]))
        full = len(tokens) // SIZE
        longest = max(
            (len(history) for s, history in self.content.values()
             if s == salt and history == tuple(tokens[: len(history)])),
            default=0,
        )  # fmt: skip
        assert len(hit) * SIZE == longest, "a findable prefix was missed"
        number, self.count = self.count, self.count + 1
        if full - len(hit) > self.pool.free - self.pool.idle(hit):
            with pytest.raises(OutOfBlocks):
                self.pool.take(self.pool.free + 1)
            self.held[number] = []
            return number
        self.pool.share(hit)
        free = self.pool.free
        table = hit + self.pool.take(full - len(hit))
        assert self.pool.free == free - (full - len(hit))
        for block in table[len(hit) :]:
            self.content.pop(block, None)
        self.held[number] = self._sealed(salt, tokens, table, len(hit))
        return number

    def _sealed(self, salt, tokens, table, start):
        for index in range(start, len(table)):
            parent = table[index - 1] if index else salt
            data = np.array(tokens[index * SIZE : (index + 1) * SIZE], np.int32).tobytes()
            table[index] = self.pool.seal(table[index], parent, data)
            self.content[table[index]] = (salt, tuple(tokens[: (index + 1) * SIZE]))
        return table

    @rule(number=consumes(tables))
    def release(self, number):
        self.pool.release(self.held.pop(number))

    @rule()
    def clear(self):
        self.pool.clear()
        keep = {block for table in self.held.values() for block in table}
        self.content = {b: history for b, history in self.content.items() if b in keep}

    @rule()
    def listen_anew(self):
        """A late listener hears of the whole cache, parents first."""
        self.mirror = {}
        self.pool.subscribe(self._heard)

    @invariant()
    def books_balance(self):
        if not hasattr(self, "pool"):
            return
        audit_pool(self.pool, self.held)
        names = set()
        for salt, history in self.content.values():
            name = root_name(salt)
            for start in range(0, len(history), SIZE):
                data = np.array(history[start : start + SIZE], np.int32).tobytes()
                name = chain(name, data)
            names.add(name)
        assert names == set(self.mirror), "the events do not mirror the cache"

    def teardown(self):
        if hasattr(self, "pool"):
            for table in self.held.values():
                self.pool.release(table)
            assert self.pool.free == self.pool.num_blocks


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
