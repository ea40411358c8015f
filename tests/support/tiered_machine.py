"""The scheduler's machine with a host tier and a disk that is slow, fails and forgets.

Everything that the machine below it checks still holds: above all, the text. Beyond that, what is
in a tier under a name is what the ledger computes for the tokens of that name, budgets are kept,
and what is told of the tiers is what is in them.
"""

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from engines.ledger import _fingerprint
from kvcache.events import BlockStored
from kvcache.naming import prompt_names, root_name
from kvcache.tiers import DISK, HOST, Remove, Tiers, Write
from tests.support.machine import SchedulerMachine, prompts


class TieredMachine(SchedulerMachine):
    """`disk` is what a disk would hold; its tasks are done some at a time, and in order."""

    @initialize(
        size=st.sampled_from([1, 2, 4]),
        blocks=st.integers(2, 12),
        width=st.integers(1, 5),
        spare=st.integers(4, 14),
        ageing=st.sampled_from([1, 8]),
        tiers=st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 6)),
    )
    def build(self, size, blocks, width, spare, ageing, tiers):
        host, room, writing = tiers
        self._tiers = Tiers(host, room, most_writing=writing)
        self.host, self.room, self.flushed = host, room, False
        self.disk: dict[bytes, np.ndarray] = {}
        self.tasks: list[Write | Remove] = []
        self.told: dict[int, set[bytes]] = {HOST: set(), DISK: set()}
        self.tokens: dict[bytes, tuple[int, ...]] = {}  # of a name: its whole history
        self._tiers.tell(self._heard_tier)
        SchedulerMachine.build(self, size, blocks, width, spare, ageing)
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
            before = self.tokens.get(event.parent, ())
            if not before:
                assert event.parent in map(root_name, (b"", b"other"))
            self.tokens[event.name] = before + tuple(np.frombuffer(event.tokens, "<i4").tolist())

    @rule(count=st.integers(1, 5), failing=st.booleans())
    def disk_works(self, count, failing):
        """Some of the tasks are done; writes may fail, as on a full disk."""
        self.tasks += self._tiers.take_tasks()
        for _ in range(min(count, len(self.tasks))):
            task = self.tasks.pop(0)
            if isinstance(task, Remove):
                self.disk.pop(task.name, None)
            elif failing:
                self._tiers.unwritten(task.name)
            else:
                self.disk[task.name] = task.content.copy()
                self._tiers.written(task.name)
            self.tasks += self._tiers.take_tasks()

    @rule(prompt=prompts, salt=st.sampled_from([b"", b"other"]), corrupt=st.booleans())
    def fetch(self, prompt, salt, corrupt):
        """What a prompt would find on the disk is read, as before a request is let in."""
        for name in self._tiers.beyond(prompt_names(salt, prompt, self.limits.block_size)):
            content = self.disk.get(name)
            if content is None or corrupt:
                self._tiers.lost(name, corrupt=corrupt)
            else:
                self._tiers.fetched(name, content.copy())

    @rule()
    def fill_the_disk(self):
        self.flushed = True  # then more may be on the way than otherwise
        self._tiers.flush({})

    @precondition(lambda self: self.host)
    @rule(prompt=prompts)
    def clear_and_return(self, prompt):
        """The device forgets everything; what was saved must be the same when it comes back."""
        self.scheduler.pool.clear()

    @invariant()
    def tiers_are_true(self):
        if not hasattr(self, "scheduler"):
            return
        tiers = self._tiers
        assert tiers.host_blocks <= self.host
        assert tiers.disk_blocks <= self.room
        assert self.flushed or tiers._unanswered <= tiers._most_writing
        assert set(tiers._contents) == set(tiers.names(HOST)) == self.told[HOST]
        assert set(tiers.names(DISK)) == self.told[DISK]
        assert set(tiers._writing) <= self.told[DISK]
        for name, content in [*tiers._contents.items(), *self.disk.items()]:
            assert content.view(np.uint64).tolist() == self._slots(self.tokens[name])

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
        while self.tasks or self._tiers._tasks:
            self.disk_works(count=5, failing=False)
        assert set(self.disk) == set(self._tiers.names(DISK)), "a file nobody knows of, or none"
        assert not self._tiers._writing
        assert self._tiers._unanswered == 0
