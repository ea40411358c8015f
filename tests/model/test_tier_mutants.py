"""Seeded bugs of slower tiers: the machine of the tiers must catch each of them."""

from dataclasses import replace

import pytest

from engines.ledger import LedgerRunner
from engines.scheduler import Scheduler
from engines.tiers import moves
from engines.tiers.moves import Moves
from kvcache.naming import root_name
from kvcache.tiers import DiskTier, SecondChance, Tiers
from tests.support.hunting import CAUGHT, hunt
from tests.support.tiered_machine import TieredMachine

_real = {
    (owner, name): getattr(owner, name)
    for owner, name in [
        (LedgerRunner, "launch"), (LedgerRunner, "read_blocks"), (Moves, "restore"),
        (Moves, "apply"), (Moves, "beyond"), (moves, "extend_names"), (Tiers, "keep"),
        (DiskTier, "take_tasks"), (Scheduler, "_hit"), (SecondChance, "add"),
    ]
}  # fmt: skip


def _restores_are_lost(mover, blocks, contents):
    return None


def _restores_change_places(mover, blocks, contents):
    _real[Moves, "restore"](mover, blocks, contents[::-1])


def _saves_are_read_last(runner, plan):
    result = _real[LedgerRunner, "launch"](runner, plan)
    return replace(result, saved=_real[LedgerRunner, "read_blocks"](runner, plan.saves))


def _saves_are_views(runner, blocks):
    return [runner._block(block).view("u1") for block in blocks]


def _saves_change_places(mover, result):
    _real[Moves, "apply"](mover, replace(result, saved=result.saved[::-1]))


def _restores_overwrite_rows(runner, plan):
    result = _real[LedgerRunner, "launch"](runner, replace(plan, restores=()))
    for block, content in plan.restores:
        runner._block(block)[:] = content.view("u8")
    return result


def _names_know_no_tenant(sequence, blocks, block_size):
    kept, sequence.namespace = sequence.namespace, b""
    _real[moves, "extend_names"](sequence, blocks, block_size)
    sequence.namespace = kept


def _names_know_no_turn(sequence, blocks, block_size):
    kept, sequence.turn = sequence.turn, None
    _real[moves, "extend_names"](sequence, blocks, block_size)
    sequence.turn = kept


def _names_know_no_history(sequence, blocks, block_size):
    for index in range(len(sequence.names), blocks):
        tokens = sequence.log[index * block_size : (index + 1) * block_size].tobytes()
        sequence.names.append(moves.chain(root_name(sequence.namespace), tokens))


def _matches_from_the_start(mover, sequence, blocks):
    return _real[Moves, "beyond"](mover, sequence, 0)


def _match_skips_gaps(tiers, names):
    return [tiers._contents[name] for name in names if name in tiers._contents]


def _nothing_is_findable_at_once(scheduler, lane, start, kept):
    if scheduler._moves is not None and kept:
        scheduler._moves.restore(
            scheduler._lanes.tables.blocks(lane)[start : start + len(kept)], kept
        )


def _restored_leave_one_token(scheduler, sequence):
    hit, kept = _real[Scheduler, "_hit"](scheduler, sequence)
    more = [] if scheduler._moves is None else scheduler._moves.beyond(sequence, len(hit))
    return hit, more if len(more) > len(kept) else kept


def _memory_is_never_given_back(names, name):
    size, names.size = names.size, 1 << 30
    gone = _real[SecondChance, "add"](names, name)
    names.size = size
    return gone


def _a_lost_file_stays(disk, name, *, corrupt=False):
    disk._names.discard(name)
    disk._tell(name, there=False)


def _a_failed_write_is_believed(disk, name):
    disk._unanswered -= 1
    disk.writing.pop(name, None)


def _removals_are_forgotten(disk):
    return [task for task in _real[DiskTier, "take_tasks"](disk) if hasattr(task, "content")]


def _what_goes_down_is_not_told(disk, name):
    disk._names.add(name)


MUTANTS = {
    "restores are lost": (Moves, "restore", _restores_are_lost),
    "restores change places": (Moves, "restore", _restores_change_places),
    "saves are read after the rows": (LedgerRunner, "launch", _saves_are_read_last),
    "saves are what blocks become": (LedgerRunner, "read_blocks", _saves_are_views),
    "saves get each other's names": (Moves, "apply", _saves_change_places),
    "restores overwrite rows or come too late": (LedgerRunner, "launch", _restores_overwrite_rows),
    "names know no tenant": (moves, "extend_names", _names_know_no_tenant),
    "names know no turn": (moves, "extend_names", _names_know_no_turn),
    "names know no history": (moves, "extend_names", _names_know_no_history),
    "what the device has is restored again": (Moves, "beyond", _matches_from_the_start),
    "a run goes on behind a gap": (Tiers, "match", _match_skips_gaps),
    "restored blocks are not sealed": (Scheduler, "_restore", _nothing_is_findable_at_once),
    "what is restored leaves one token": (Scheduler, "_hit", _restored_leave_one_token),
    "a budget is not kept": (SecondChance, "add", _memory_is_never_given_back),
    "a lost file is not removed": (DiskTier, "lost", _a_lost_file_stays),
    "a failed write is believed": (DiskTier, "unwritten", _a_failed_write_is_believed),
    "files are never removed": (DiskTier, "take_tasks", _removals_are_forgotten),
    "what goes to the disk is not told": (DiskTier, "_enter", _what_goes_down_is_not_told),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_is_caught(name, monkeypatch):
    """Each bug breaks an invariant, a book, or the text."""
    owner, attribute, bug = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, bug)
    with pytest.raises(CAUGHT):
        hunt(TieredMachine, steps=50)
