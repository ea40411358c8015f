"""Seeded bugs: the model-based tests must catch each of them, or they prove little."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from engines import drafting, reserving
from engines import scheduler as scheduling
from engines.drafting import Drafter
from engines.drafts import Drafts
from engines.lanes import Lanes
from engines.plan_writer import PlanWriter
from engines.reserving import Reserver
from engines.scheduler import Scheduler
from engines.sealing import Sealer
from engines.sequence import Sequence
from engines.sharing import place_of as _place_of
from engines.tables import BlockTables
from engines.taking import Taker
from engines.waiting import WaitingLine
from kvcache.pool import BlockPool, OutOfBlocks
from tests.support.drafted import check_drafted
from tests.support.hit_rate import Whose, observed_hits, owed_hits, second_turn_hits
from tests.support.machine import SchedulerMachine

_real = {
    (owner, name): getattr(owner, name)
    for owner, name in [
        (BlockPool, "seal"), (BlockPool, "release"), (BlockPool, "match"), (BlockPool, "share"),
        (Scheduler, "_part"), (Scheduler, "_admit"), (Scheduler, "_leave"), (Sealer, "seal"),
        (Scheduler, "abort"), (Scheduler, "apply"), (Taker, "_append_drafts"),
        (Drafter, "_draft"), (PlanWriter, "decode_drafts"),
        (Scheduler, "_count_hit"), (Scheduler, "_hit"),
        (Lanes, "bind"), (Lanes, "unbind"), (Lanes, "append_more"), (BlockTables, "extend_each"),
        (BlockTables, "replace_last"), (Sealer, "_seal_one_each"),
        (PlanWriter, "run"), (PlanWriter, "plan"), (WaitingLine, "push"),
    ]
}  # fmt: skip


def _seal_without_parent(pool, block, parent, tokens):
    return _real[BlockPool, "seal"](pool, block, b"", tokens)


def _seal_leaks_a_duplicate(pool, block, parent, tokens):
    refs = pool._refs[block]
    kept = _real[BlockPool, "seal"](pool, block, parent, tokens)
    if kept != block and refs == 1:
        pool._free.remove(block)
        pool._refs[block] = 1
    return kept


def _release_head_first(pool, table):
    _real[BlockPool, "release"](pool, list(reversed(table)))


def _release_twice_shared(pool, table):
    _real[BlockPool, "release"](pool, [b for b in table if pool._refs[b] == 1 or b % 2])


def _match_one_too_few(pool, namespace, tokens, turn=None):
    return _real[BlockPool, "match"](pool, namespace, tokens, turn)[:-1]


def _match_any_salt(pool, namespace, tokens, turn=None):
    return _real[BlockPool, "match"](pool, b"", tokens)


def _match_never_turns(pool, namespace, tokens, turn=None):
    return _real[BlockPool, "match"](pool, namespace, tokens)


def _nothing_turns(namespace, request, block_size):
    return _place_of(namespace, request, block_size)[0], None


def _part_of_a_block_is_shared(namespace, request, block_size):
    if request.shared is not None:
        more = min(request.shared.tokens + block_size - 1, len(request.prompt))
        request = replace(request, shared=replace(request.shared, tokens=more))
    return _place_of(namespace, request, block_size)


def _all_turn_into_one(namespace, request, block_size):
    root, turn = _place_of(namespace, request, block_size)
    return root, None if turn is None else replace(turn, namespace=b"")


def _a_turn_comes_late(sequence, index, before):
    turn = sequence.turn
    if turn is not None and index == turn.block + 1:
        return before, turn.namespace
    return sequence.namespace if index == 0 else before


def _share_leaves_it_free(pool, blocks):
    for block in blocks:
        pool._refs[block] += 1


def _evict_nothing(pool, block):
    return None


def _clear_also_held(pool):
    for block, _ in list(pool._index):
        pool._evict(block)


def _part_without_copy_on_write(scheduler, leader):
    followers = list(leader.followers)
    _real[Scheduler, "_part"](scheduler, leader)
    for sequence in [leader, *followers]:
        scheduler._lanes.tables.own_last(sequence.lane)


def _part_without_sharing(scheduler, leader):
    share, scheduler.pool.share = scheduler.pool.share, lambda blocks: None
    try:
        _real[Scheduler, "_part"](scheduler, leader)
    finally:
        scheduler.pool.share = share


def _copies_are_lost(writer, copies, starts):
    return _real[PlanWriter, "plan"](writer, [], starts)


def _victim_keeps_its_blocks(scheduler, sequence):
    release, scheduler.pool.release = scheduler.pool.release, lambda table: None
    try:
        _real[Scheduler, "_leave"](scheduler, sequence)
    finally:
        scheduler.pool.release = release


def _oldest_is_preempted(sequence):
    return (-sequence.request.priority, -sequence.arrival, sequence.choice)


def _preempted_goes_to_the_back(line, sequence):
    admitted, sequence.admitted = sequence.admitted, False
    _real[WaitingLine, "push"](line, sequence)
    sequence.admitted = admitted


def _youngest_first(line, sequence):
    arrival, sequence.arrival = sequence.arrival, -sequence.arrival
    _real[WaitingLine, "push"](line, sequence)
    sequence.arrival = arrival


def _hit_covers_the_last_token(scheduler, sequence):
    return scheduler.pool.match(sequence.namespace, sequence.log, sequence.turn), []


def _hit_leaves_one_token(scheduler, sequence):
    return scheduler.pool.match(sequence.namespace, sequence.log[:-1], sequence.turn), []


def _hit_is_counted_twice(scheduler, head):
    admitted = _real[Scheduler, "_admit"](scheduler, head)
    if admitted and head.cached:
        head.cached += 1
    return admitted


def _chunk_leaves_one(left, budget):
    return min(left, budget)


def _replay_as_a_chunk(scheduler, lane, start, count):
    if count:
        scheduler._writer.run(lane, start, count)
    return count


def _seals_a_partial_block(sealer, advanced):
    sealer._lanes.computed[advanced] += 1
    _real[Sealer, "seal"](sealer, advanced)
    sealer._lanes.computed[advanced] -= 1


def _never_seals(sealer, advanced):
    return None


def _seals_only_chunks(sealer, advanced):
    if len(advanced) == 1:
        _real[Sealer, "seal"](sealer, advanced)


def _keeps_its_own_copy(sealer, filled):
    table = sealer._lanes.tables.entries[filled].copy()
    _real[Sealer, "_seal_one_each"](sealer, filled)
    sealer._lanes.tables.entries[filled] = table


def _writes_on_in_the_old_block(tables, needy, blocks):
    shift = tables._shift.copy()
    _real[BlockTables, "extend_each"](tables, needy, blocks)
    tables._shift[:] = shift


def _copies_and_writes_on(tables, lane, block):
    shift = tables._shift[lane]
    _real[BlockTables, "replace_last"](tables, lane, block)
    tables._shift[lane] = shift


def _forced_are_not_the_last(lanes, lane, tokens):
    last = lanes.last[lane]
    taken = _real[Lanes, "append_more"](lanes, lane, tokens)
    lanes.last[lane] = last
    return taken


def _who_runs_is_told_late(lanes, lane):
    lanes._running[lane] = True
    if lanes._active is None:
        lanes.active()


def _abort_ends_all_choices(scheduler, request_id, choice=None):
    _real[Scheduler, "abort"](scheduler, request_id)


def _abort_forgets_the_line(scheduler, request_id, choice=None):
    if any(each.lane >= 0 for each in scheduler._open.get(request_id, [])):
        _real[Scheduler, "abort"](scheduler, request_id, choice)


def _abort_waits_for_all_choices(scheduler, request_id, choice=None):
    choices = scheduler._open.get(request_id, [])
    for each in choices:
        each.ended |= choice in (None, each.choice)
    if choices and all(each.ended for each in choices):
        _real[Scheduler, "abort"](scheduler, request_id)


def _ended_choices_run_on(scheduler, leader):
    group = leader.group
    _real[Scheduler, "_part"](scheduler, leader)
    for sequence in group:
        sequence.ended = False


def _says_ended_ones_again(scheduler, plan, result):
    outcome = _real[Scheduler, "apply"](scheduler, plan, result)
    again = scheduler.__dict__.setdefault("_said", [])
    if again:
        outcome.sequences.append(again.pop())
        outcome.tokens.append(0)
    again.extend(outcome.sequences[index] for index in outcome.finishes)
    return outcome


def _returns_in_reverse(line, sequence):
    kept = sequence.step, sequence.arrival
    if sequence.admitted:
        sequence.step, sequence.arrival = -sequence.step, -sequence.arrival
    _real[WaitingLine, "push"](line, sequence)
    sequence.step, sequence.arrival = kept


def _hits_are_not_counted(scheduler, head, tokens):
    _real[Scheduler, "_count_hit"](scheduler, head, tokens)
    scheduler.counters.prefix_hit_tokens = 0


def _stops_are_never_uncounted(lanes, sequence):
    stops = lanes.stops.copy()
    table = _real[Lanes, "unbind"](lanes, sequence)
    lanes.stops[:] = stops
    return table


def _limit_off_by_one(lanes, sequence):
    lane = _real[Lanes, "bind"](lanes, sequence)
    lanes.limit[lane] += 1
    return lane


def _log_loses_its_last_token(lanes, sequence):
    table = _real[Lanes, "unbind"](lanes, sequence)
    if len(sequence.log) > sequence.prompt_len:
        sequence.log = sequence.log[:-1]
    return table


def _past_is_ignored(writer, lane, start, count):
    _real[PlanWriter, "run"](writer, lane, 0, count)


def _head_that_fits_is_left(scheduler, head):
    if scheduler._running and scheduler.pool.free < scheduler.pool.num_blocks // 2:
        return False
    return _real[Scheduler, "_admit"](scheduler, head)


def _forced_are_said_only(lanes, lane, tokens):
    length = int(lanes.length[lane])
    taken = _real[Lanes, "append_more"](lanes, lane, tokens)
    lanes.length[lane] = length
    return taken


def _forced_know_no_limit(lanes, lane, tokens):
    limit, lanes.limit[lane] = int(lanes.limit[lane]), lanes.tokens.shape[1]
    taken = _real[Lanes, "append_more"](lanes, lane, tokens)
    lanes.limit[lane] = limit
    return taken


def _forced_are_not_said(lanes, lane, tokens):
    return _real[Lanes, "append_more"](lanes, lane, tokens)[:-1]


def _one_block_is_enough(reserver):
    for sequence in list(reserver._running):
        if reserver._needs_block(sequence.lane):
            reserver._reserve_next(sequence)


def _every_guess_counts(drafts, tokens):
    return np.ones(len(tokens), bool)


def _a_wrong_guess_does_not_end_the_run(drafts, tokens):
    right = np.ones(len(tokens), bool)
    right[1:] = (drafts.fed[1:] == tokens[:-1]) | drafts.first[1:]
    return right


def _all_that_was_sampled_counts(drafter, drafts, lanes, tokens):
    starts = np.flatnonzero(drafts.first).tolist()
    return [range(*ends) for ends in itertools.pairwise([*starts, len(tokens)])]


def _a_stop_among_drafts_is_overlooked(drafter, drafts, lanes, tokens):
    starts, counted = np.flatnonzero(drafts.first).tolist(), drafts.counted(tokens)
    ends = [*starts[1:], len(tokens)]
    pairs = zip(starts, ends, strict=True)
    return [range(start, start + int(counted[start:end].sum())) for start, end in pairs]


def _drafts_need_no_room(drafter, lane, most):
    room, drafter._lanes.tables.room = drafter._lanes.tables.room, np.full(64, 1000)
    drafted = _real[Drafter, "_draft"](drafter, lane, most)
    drafter._lanes.tables.room = room
    return drafted


def _drafts_know_no_limit(drafter, lane, most):
    limit, drafter._lanes.limit = drafter._lanes.limit, drafter._lanes.tables.room + 1
    drafted = _real[Drafter, "_draft"](drafter, lane, most)
    drafter._lanes.limit = limit
    return drafted


def _what_was_rejected_is_sealed(taker, lanes, result, samples):
    more = _real[Taker, "_append_drafts"](taker, lanes, result, samples)
    taker._lanes.computed[lanes] += 1
    taker._sealer.seal(lanes)
    taker._lanes.computed[lanes] -= 1
    return more


def _what_was_drafted_is_computed_again(taker, lanes, result, samples):
    computed = taker._lanes.computed[lanes]
    more = _real[Taker, "_append_drafts"](taker, lanes, result, samples)
    taker._lanes.computed[lanes] = computed
    return more


def _all_may_draft(request):
    return True


def _drafts_are_written_to_one_slot(writer, lanes, positions, counts):
    slots = writer._lanes.tables.slots
    writer._lanes.tables.slots = lambda lanes, positions: slots(lanes, positions) // 2 * 2
    try:
        _real[PlanWriter, "decode_drafts"](writer, lanes, positions, counts)
    finally:
        del writer._lanes.tables.slots


MUTANTS = {
    "every guess counts": (Drafts, "counted", _every_guess_counts),
    "a wrong guess does not end a run": (Drafts, "counted", _a_wrong_guess_does_not_end_the_run),
    "what was guessed is said": (Drafter, "verify", _all_that_was_sampled_counts),
    "a stop among drafts is overlooked": (Drafter, "verify", _a_stop_among_drafts_is_overlooked),
    "drafts need no room": (Drafter, "_draft", _drafts_need_no_room),
    "drafts know no limit": (Drafter, "_draft", _drafts_know_no_limit),
    "what was rejected is sealed": (Taker, "_append_drafts", _what_was_rejected_is_sealed),
    "drafts are computed twice": (Taker, "_append_drafts", _what_was_drafted_is_computed_again),
    "guided sequences draft": (drafting, "may_draft", _all_may_draft),
    "drafts share slots": (PlanWriter, "decode_drafts", _drafts_are_written_to_one_slot),
    "forced tokens are said and forgotten": (Lanes, "append_more", _forced_are_said_only),
    "forced tokens know no limit": (Lanes, "append_more", _forced_know_no_limit),
    "a forced token is not said": (Lanes, "append_more", _forced_are_not_said),
    "one block is reserved for many tokens": (Reserver, "reserve", _one_block_is_enough),
    "a block is sealed without its parent": (BlockPool, "seal", _seal_without_parent),
    "a duplicate block is never given back": (BlockPool, "seal", _seal_leaks_a_duplicate),
    "a table is released head first": (BlockPool, "release", _release_head_first),
    "a shared block is sometimes not released": (BlockPool, "release", _release_twice_shared),
    "what is sealed behind a turn is never found": (BlockPool, "match", _match_never_turns),
    "all of a prompt is shared": (scheduling, "place_of", _nothing_turns),
    "the block where it turns is shared": (scheduling, "place_of", _part_of_a_block_is_shared),
    "all turn into one salt": (scheduling, "place_of", _all_turn_into_one),
    "a block too many is sealed as shared": (Sequence, "above", _a_turn_comes_late),
    "matching stops one block early": (BlockPool, "match", _match_one_too_few),
    "matching ignores the salt": (BlockPool, "match", _match_any_salt),
    "a shared block stays in the free list": (BlockPool, "share", _share_leaves_it_free),
    "a taken block stays findable": (BlockPool, "_evict", _evict_nothing),
    "clearing forgets held blocks": (BlockPool, "clear", _clear_also_held),
    "siblings write into one block": (Scheduler, "_part", _part_without_copy_on_write),
    "siblings do not hold what they share": (Scheduler, "_part", _part_without_sharing),
    "copies are lost": (PlanWriter, "plan", _copies_are_lost),
    "who leaves keeps its blocks": (Scheduler, "_leave", _victim_keeps_its_blocks),
    "the oldest is preempted": (reserving, "seniority", _oldest_is_preempted),
    "the preempted go to the back": (WaitingLine, "push", _preempted_goes_to_the_back),
    "the youngest goes first": (WaitingLine, "push", _youngest_first),
    "a hit covers the last token": (Scheduler, "_hit", _hit_covers_the_last_token),
    "a hit leaves a chunk of one token": (Scheduler, "_hit", _hit_leaves_one_token),
    "cached tokens are miscounted": (Scheduler, "_admit", _hit_is_counted_twice),
    "a chunk leaves one token behind": (scheduling, "_chunk", _chunk_leaves_one),
    "output is recomputed as a chunk": (Scheduler, "_replay", _replay_as_a_chunk),
    "a partial block is sealed": (Sealer, "seal", _seals_a_partial_block),
    "nothing is ever sealed": (Sealer, "seal", _never_seals),
    "what is decoded is never sealed": (Sealer, "seal", _seals_only_chunks),
    "a duplicate is held on to": (Sealer, "_seal_one_each", _keeps_its_own_copy),
    "a new block is not written to": (BlockTables, "extend_each", _writes_on_in_the_old_block),
    "a copied block is not written to": (BlockTables, "replace_last", _copies_and_writes_on),
    "the last token is not the last": (Lanes, "append_more", _forced_are_not_the_last),
    "who begins to run is overlooked": (Lanes, "run", _who_runs_is_told_late),
    "ending one choice ends all": (Scheduler, "abort", _abort_ends_all_choices),
    "an abort forgets the line": (Scheduler, "abort", _abort_forgets_the_line),
    "ending a choice waits for all": (Scheduler, "abort", _abort_waits_for_all_choices),
    "a choice ended early runs on": (Scheduler, "_part", _ended_choices_run_on),
    "something follows the end": (Scheduler, "apply", _says_ended_ones_again),
    "the preempted return in reverse": (WaitingLine, "push", _returns_in_reverse),
    "hits are not counted": (Scheduler, "_count_hit", _hits_are_not_counted),
    "stop tokens stay counted": (Lanes, "unbind", _stops_are_never_uncounted),
    "one token too many": (Lanes, "bind", _limit_off_by_one),
    "a preempted sequence loses a token": (Lanes, "unbind", _log_loses_its_last_token),
    "a chunk starts from zero again": (PlanWriter, "run", _past_is_ignored),
    "a head that fits is left waiting": (Scheduler, "_admit", _head_that_fits_is_left),
}

_CAUGHT = (AssertionError, ValueError, LookupError, OutOfBlocks)  # not a slip in the mutant itself
_HUNT = settings(
    max_examples=6000,  # it ends with the first catch: most bugs need a few dozen
    stateful_step_count=40,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
_PROMPTS = [
    [0, 1, 2, 0, 1, 1, 2], [0, 1, 2, 0, 1, 1, 2], [0, 1, 2, 2, 2],
    [0, 1, 2, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 1, 2, 2],
]  # fmt: skip

_WHOSE = [Whose(b"a", 3), Whose(b"a", 3), Whose(b"b", 4), Whose(b"b", 3), Whose(b"b", 3)]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_is_caught(name, monkeypatch):
    """Each bug breaks an invariant, the text, or the hit-rate floor."""
    owner, attribute, bug = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, bug)
    with pytest.raises(_CAUGHT):
        _hunt()


def _hunt():
    hits, answers = observed_hits(_PROMPTS)
    assert hits == owed_hits(_PROMPTS, answers)
    hits, answers = observed_hits(_PROMPTS, _WHOSE)
    assert hits == owed_hits(_PROMPTS, answers, _WHOSE)
    assert second_turn_hits() == [0, 6]
    for block, said in ((4, 2), (8, 3), (32, 2)):
        check_drafted(block, said)
    run_state_machine_as_test(SchedulerMachine, settings=_HUNT)
