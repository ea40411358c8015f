"""From pool to directory: whatever happens on the way, at rest the names are the pool's names.

A pool is filled and evicted; its events gather, are told to a log, and readers follow that log:
slow ones, some that are cut off within a snapshot, some that come back with what they had, and some
whose batches get lost or come twice. The worker may be replaced by another, with another epoch.
"""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engines.kv_changes import Gathering, KvChange
from engines.kv_log import KvLog, KvReader, Tail, Untrue
from kvcache.directory import PrefixDirectory
from kvcache.events import BlockStored
from kvcache.naming import chain, prompt_names, root_name
from kvcache.pool import BlockPool

SIZE = 2
READERS = ("one", "two")
PROMPT = st.lists(st.integers(0, 2), min_size=SIZE, max_size=5 * SIZE)


class Worker:
    """A pool that tells a log, as a stepped engine and its server do."""

    def __init__(self, epoch, blocks):
        self.pool = BlockPool(blocks, SIZE)
        self.log = KvLog(epoch, batches=3, names=8, part=3)
        self._gathering = Gathering()
        self.follow()

    def follow(self):
        self.pool.subscribe(self._hear)
        self.end_step()

    def end_step(self):
        change = self._gathering.take()
        if change is not None:
            self.log.tell(change)

    def compute(self, tokens):
        """A prompt runs and ends; what it needs is evicted before."""
        hit = self.pool.match(b"", np.array(tokens, np.int32))
        full = len(tokens) // SIZE
        if full - len(hit) > self.pool.free - self.pool.idle(hit):
            return
        self.pool.share(hit)
        table = hit + self.pool.take(full - len(hit))
        for index in range(len(hit), full):
            data = np.array(tokens[index * SIZE : (index + 1) * SIZE], "<i4").tobytes()
            table[index] = self.pool.seal(table[index], table[index - 1] if index else b"", data)
        self.pool.release(table)

    def names(self):
        found = {}
        for _, sealed in self.pool._index:
            above, tokens = sealed.key
            parent = root_name(above) if isinstance(above, bytes) else found[above]
            found[sealed.serial] = chain(parent, tokens)
        return set(found.values())

    def _hear(self, event):
        if isinstance(event, BlockStored):
            self._gathering.store(event.name)
        else:
            self._gathering.remove(event.name)


class FeedMachine(RuleBasedStateMachine):
    """A worker, two readers, and a directory that knows each reader as a worker of its own."""

    @initialize(blocks=st.integers(1, 8))
    def build(self, blocks):
        self.blocks, self.epoch = blocks, 1
        self.worker = Worker(1, blocks)
        self.directory = PrefixDirectory()
        self.known = {name: set() for name in READERS}
        self.tails = {name: Tail(1) for name in READERS}
        self.calls = {name: self.call(name) for name in READERS}

    def call(self, name):
        """A reader asks, with what it has."""
        tail = self.tails[name]
        tail.restart()
        return KvReader(self.worker.log, tail.epoch, tail.after)

    def believe(self, name, changes):
        for change in changes:
            if change.cleared:
                self.known[name].clear()
                self.directory.clear(name)
            assert self.known[name].issuperset(change.removed)
            self.known[name] = (self.known[name] - set(change.removed)) | set(change.stored)
            self.directory.fold(name, removed=change.removed, stored=change.stored)

    def read(self, name, batch):
        try:
            self.believe(name, self.tails[name].take(batch))
        except Untrue:
            self.calls[name] = self.call(name)

    @rule(prompts=st.lists(PROMPT, min_size=1, max_size=3))
    def step(self, prompts):
        for tokens in prompts:
            self.worker.compute(tokens)
        self.worker.end_step()

    @rule()
    def evict(self):
        self.worker.pool.clear()
        self.worker.end_step()

    @rule()
    def forget(self):
        """As an engine does that has lost events: what it tells next is all there is."""
        self.worker.log.tell(KvChange(cleared=True))
        self.worker.follow()

    @rule(name=st.sampled_from(READERS), count=st.integers(1, 4))
    def read_some(self, name, count):
        for _ in range(count):
            batch = self.calls[name].next()
            if batch is not None:
                self.read(name, batch)

    @rule(name=st.sampled_from(READERS))
    def cut(self, name):
        self.calls[name] = self.call(name)

    @rule(name=st.sampled_from(READERS))
    def lose_a_batch(self, name):
        """Parts of a snapshot are not lost: they come in one call, which breaks or does not."""
        batch = self.calls[name].next()
        if batch is not None and batch.snapshot:
            self.cut(name)

    @rule(name=st.sampled_from(READERS))
    def hear_twice(self, name):
        batch = self.calls[name].next()
        if batch is not None:
            self.read(name, batch)
            if not batch.more:
                self.read(name, batch)

    @rule()
    def replace_the_worker(self):
        """It is another process: who was connected has lost the engine, and begins anew."""
        self.epoch += 1
        self.worker = Worker(self.epoch, self.blocks)
        for name in READERS:
            self.tails[name] = Tail(self.epoch)
            self.calls[name] = self.call(name)

    @rule(name=st.sampled_from(READERS), prompt=PROMPT)
    def come_to_rest(self, name, prompt):
        """A reader that reads on until there is no more knows what there is."""
        for _ in range(1000):
            batch = self.calls[name].next()
            if batch is not None:
                self.read(name, batch)
            elif self.tails[name]._place is not None:
                break  # has everything: it has lost nothing on the way
            else:
                self.calls[name] = self.call(name)
        there = self.worker.names()
        if self.lost(name):
            return
        assert self.known[name] == there
        names = prompt_names(b"", prompt, SIZE)
        run = next((at for at, block in enumerate(names) if block not in there), len(names))
        assert self.directory.matches(names).get(name, 0) == run

    def lost(self, name):
        """The last batch was lost, and with no further one nobody can know."""
        return self.tails[name].after != self.worker.log.sequence

    @invariant()
    def is_bounded(self):
        if hasattr(self, "worker"):
            log = self.worker.log
            assert len(log._last) <= 3
            assert log._held <= 8
            assert sum(map(len, log._open.values())) < 3

    def teardown(self):
        """At quiescence: one more change, and everybody has it."""
        if not hasattr(self, "worker"):
            return
        self.worker.pool.clear()
        self.worker.compute([3, 3])  # nobody has asked that before
        self.worker.end_step()
        for name in READERS:
            for _ in range(1000):
                batch = self.calls[name].next()
                if batch is not None:
                    self.read(name, batch)
                elif not self.lost(name):
                    break
            assert self.known[name] == self.worker.names() != set()


TestFeed = FeedMachine.TestCase
TestFeed.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
