"""The scheduler's machine with a host tier and a disk that is slow, fails and forgets.

Everything that the machine below it checks still holds: above all, the text. Beyond that, what is
in a tier under a name is what the ledger computes for the tokens of that name, budgets are kept,
and what is told of the tiers is what is in them.
"""

import random

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from engines.ledger import _fingerprint
from kvcache.events import BlockStored
from kvcache.naming import Turn, prompt_names, root_name, turned
from kvcache.tiers import DISK, HOST, Remove, Tiers, Write
from tests.support.machine import DRAFTS, SchedulerMachine

SALTS = (b"", b"other", b"group")


class TieredMachine(SchedulerMachine):
    """`disk` is what a disk would hold; its tasks are done some at a time, and in order."""

    @initialize(
        size=st.sampled_from([1, 2, 4]),
        blocks=st.integers(2, 8),
        width=st.integers(1, 5),
        spare=st.integers(4, 14),
        ageing=st.sampled_from([1, 8]),
        drafts=DRAFTS,
        tiers=st.tuples(
            st.integers(0, 8), st.integers(0, 16), st.integers(1, 20), st.integers(0, 1 << 20)
        ),
    )
    def build(self, size, blocks, width, spare, ageing, *, drafts, tiers):
        host, room, writing, seed = tiers
        self._tiers = Tiers(host, room, most_writing=writing)
        self.host, self.room, self.flushed = host, room, False
        self.chance = random.Random(seed)
        self.disk: dict[bytes, np.ndarray] = {}
        self.tasks: list[Write | Remove] = []
        self.told: dict[int, set[bytes]] = {HOST: set(), DISK: set()}
        self.tokens: dict[bytes, tuple[int, ...]] = {}  # of a name: its whole history
        self.ways: dict[bytes, tuple[bytes, Turn | None]] = {}  # of a name: how it is come by
        self._tiers.tell(self._heard_tier)
        SchedulerMachine.build(self, size, blocks, width, spare, ageing, drafts)
        self.scheduler.pool.subscribe(self._heard_block)

    def tiers(self):
        return self._tiers

    def _heard_tier(self, tier, name, *, there):
        if there:
            self.told[tier].add(name)
        else:
            self.told[tier].discard(name)

    def _heard_block(self, event):
        if isinstance(event, BlockStored):
            before, self.ways[event.name] = self._way_to(event.parent)
            self.tokens[event.name] = before + tuple(np.frombuffer(event.tokens, "<i4").tolist())

    def _way_to(self, parent):
        """The tokens up to a block, and the namespaces that its chain has been in."""
        for salt in SALTS:
            if parent == root_name(salt):
                return (), (salt, None)
        if parent in self.tokens:
            return self.tokens[parent], self.ways[parent]
        size = self.limits.block_size
        for name, tokens in self.tokens.items():
            for salt in SALTS:
                if parent == turned(name, salt):
                    return tokens, (self.ways[name][0], Turn(len(tokens) // size, salt))
        raise AssertionError("a block behind nothing")

    def _check_plan(self, plan):
        """What is restored into a block was kept under the name of that block (I4)."""
        super()._check_plan(plan)
        tiers, pool = self._tiers, self.scheduler.pool
        kept = {
            id(each): name for name, each in [*tiers._contents.items(), *tiers.disk.writing.items()]
        }
        for block, content in plan.restores:
            assert kept[id(content)] == pool._names[pool._index.serial(block)]

    def _step(self):
        """Between two steps the disk does something, well or badly."""
        self._work(self.chance.randrange(5), failing=self.chance.random() < 0.1)
        for _ in range(self.chance.randrange(3) if self.disk else 0):
            self._fetch(self.chance.choice(sorted(self.disk)), corrupt=self.chance.random() < 0.1)
        super()._step()

    @rule(count=st.integers(1, 5), failing=st.booleans())
    def disk_works(self, count, failing):
        self._work(count, failing=failing)

    def _work(self, count, *, failing):
        """Some of the tasks are done; writes may fail, as on a full disk."""
        self.tasks += self._tiers.disk.take_tasks()
        for _ in range(min(count, len(self.tasks))):
            task = self.tasks.pop(0)
            if isinstance(task, Remove):
                self.disk.pop(task.name, None)
            elif failing:
                self._tiers.disk.unwritten(task.name)
            else:
                self.disk[task.name] = task.content.copy()
                self._tiers.disk.written(task.name)
            self.tasks += self._tiers.disk.take_tasks()

    @precondition(lambda self: self.disk)
    @rule(data=st.data(), corrupt=st.sampled_from([False, False, True]))
    def fetch(self, data, corrupt):
        self._fetch(data.draw(st.sampled_from(sorted(self.disk))), corrupt=corrupt)

    def _fetch(self, name, *, corrupt):
        """What the disk has up to a block is read, as for a request that is to be let in."""
        root, turn = self.ways[name]
        names = prompt_names(root, self.tokens[name], self.limits.block_size, turn)
        assert names[-1] == name
        tokens = np.array(self.tokens[name], np.int32)
        hit = len(self.scheduler.pool.match(root, tokens, turn))
        for wanted in self._tiers.beyond(names[hit:]):
            content = self.disk.get(wanted)
            if content is None or corrupt:
                self._tiers.disk.lost(wanted, corrupt=corrupt)
            else:
                self._tiers.fetched(wanted, content.copy())

    @rule()
    def fill_the_disk(self):
        self.flushed = True  # then more may be on the way than otherwise
        self._tiers.flush({})

    @invariant()
    def tiers_are_true(self):
        if not hasattr(self, "scheduler"):
            return
        tiers = self._tiers
        assert tiers.host_blocks <= self.host
        assert len(tiers.disk) <= self.room
        assert self.flushed or tiers.disk._unanswered <= tiers.disk._most_writing
        assert set(tiers._contents) == set(tiers.names(HOST)) == self.told[HOST]
        assert set(tiers.names(DISK)) == self.told[DISK]
        assert set(tiers.disk.writing) <= self.told[DISK]
        for name, content in [*tiers._contents.items(), *self.disk.items()]:
            assert content.view(np.uint64).tolist() == self._slots(self.tokens[name])

    @invariant()
    def sequences_know_their_names(self):
        """What is looked up in a tier are the names of the very tokens, under the very salts."""
        if not hasattr(self, "scheduler"):
            return
        size = self.limits.block_size
        for each in (*self.scheduler._running, *self.scheduler.waiting):
            request, own = each.request, each.request.cache_salt
            prompt, turn = request.prompt[: len(each.names) * size], None
            root = own
            if request.shared is not None and request.shared.tokens >= size:
                root, turn = b"group", Turn(request.shared.tokens // size, own)
            names = prompt_names(root, prompt, size, turn)
            assert each.names[: len(names)] == names

    def _slots(self, tokens):
        """The fingerprints of the last block of a history."""
        slots, before = [], 0
        for position, token in enumerate(tokens):
            before = _fingerprint(token, position, before)
            slots.append(before)
        return slots[-self.limits.block_size :]

    def teardown(self):
        super().teardown()
        if not hasattr(self, "scheduler") or self.broken:
            return
        while self.tasks or self._tiers.disk._tasks:
            self._work(5, failing=False)
        assert set(self.disk) == set(self._tiers.names(DISK)), "a file nobody knows of, or none"
        assert not self._tiers.disk.writing
        assert self._tiers.disk._unanswered == 0
