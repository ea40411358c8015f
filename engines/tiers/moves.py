"""What each step moves between the device's blocks and the host's memory. Pure.

    pool evicts a block ----> saves of the next plan ---- runner ----> result.saved --> tiers.keep
    admission: tiers.match -> restores of this plan ---- runner ----> the blocks, before its rows

A block that is evicted keeps its bytes until the step that overwrites it, and a step reads its
saves before anything else: so whatever made the pool evict it, the bytes are there to be saved.
"""

from collections.abc import Iterable
from dataclasses import replace

from engines.sequence import Sequence
from engines.step import BlockBytes, StepPlan, StepResult
from kvcache.events import BlockEvent, BlockRemoved
from kvcache.naming import BlockName, chain, root_name, turned
from kvcache.pool import BlockPool
from kvcache.tiers import Tiers


class Moves:
    """Listens to what a pool evicts, and finds what admission would have to compute again."""

    def __init__(self, tiers: Tiers[BlockBytes], pool: BlockPool) -> None:
        self.tiers = tiers
        self._size = pool.block_size
        self._saves: dict[int, BlockName] = {}
        self._saving: tuple[BlockName, ...] = ()  # those of the plan that is computed
        self._restores: list[tuple[int, BlockBytes]] = []
        pool.subscribe(self._hear)

    def beyond(self, sequence: Sequence, blocks: int) -> list[BlockBytes]:
        """The contents that follow the first `blocks` of a sequence: of all but its last token."""
        full = (len(sequence.log) - 1) // self._size
        if full <= blocks or not self.tiers.has_contents:
            return []
        extend_names(sequence, full, self._size)
        return self.tiers.match(sequence.names[blocks:full])

    def restore(self, blocks: Iterable[int], contents: Iterable[BlockBytes]) -> None:
        """Put contents into blocks before the rows of the plan that is made."""
        self._restores += zip(blocks, contents, strict=True)

    def plan(self, plan: StepPlan) -> StepPlan:
        """The plan, with what it must move."""
        if not (self._saves or self._restores) or not plan.rows:
            return plan  # one without rows is not computed
        moved = replace(plan, saves=tuple(self._saves), restores=tuple(self._restores))
        self.tiers.counters.restored += len(self._restores)
        self._saving = tuple(self._saves.values())
        self._saves, self._restores = {}, []
        return moved

    def apply(self, result: StepResult) -> None:
        """Keep what the last plan has saved."""
        for name, content in zip(self._saving, result.saved, strict=True):
            self.tiers.keep(name, content)
        self._saving = ()

    def _hear(self, event: BlockEvent) -> None:
        if not isinstance(event, BlockRemoved) or event.block is None:
            return
        if self.tiers.wants(event.name):
            self._saves[event.block] = event.name


def extend_names(sequence: Sequence, blocks: int, block_size: int) -> None:
    """See to it that a sequence has the names of so many full blocks: a log only grows."""
    names, turn = sequence.names, sequence.turn
    parent = names[-1] if names else root_name(sequence.namespace)
    for index in range(len(names), blocks):
        if turn is not None and index == turn.block:
            parent = turned(parent, turn.namespace)
        parent = chain(
            parent, sequence.log[index * block_size : (index + 1) * block_size].tobytes()
        )
        names.append(parent)
