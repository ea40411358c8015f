"""Seeded bugs of what a worker keeps: the machine of kept requests must catch each of them."""

from dataclasses import replace

import pytest

from engines import worker_runs
from engines.worker_runs import Run, Runs
from engines.worker_session import Session
from tests.support.hunting import CAUGHT, hunt
from tests.support.kept_machine import KeptMachine

_real = {
    (owner, name): getattr(owner, name)
    for owner, name in [
        (Run, "tell_again"), (Run, "knows"), (Runs, "attach"), (Runs, "submit"), (Runs, "cancel"),
        (Runs, "leave"), (Runs, "_forget"), (Session, "put"),
    ]
}  # fmt: skip


def _nobody_is_replaced(runs, run, to):
    run.heard_by = to


def _who_is_replaced_hears_nothing(runs, run, to):
    before, run.heard_by = run.heard_by, to
    if before is not None:
        before[0].ended(before[1])


def _who_is_replaced_after_the_end_hears_so(runs, run, to):
    before, run.heard_by = run.heard_by, to
    if before is not None:
        before[0].fail(before[1], worker_runs.RequestTaken("late"))
        before[0].ended(before[1])


def _equal_attempts_are_let_in(runs, name, attempt, positions, listener, handle):
    run = runs._kept.get(name)
    if run is not None and attempt == run.attempt:
        run.attempt -= 1
    return _real[Runs, "attach"](runs, name, attempt, positions, listener, handle)


def _a_refused_attempt_counts(runs, name, attempt, positions, listener, handle):
    run = runs._kept.get(name)
    try:
        return _real[Runs, "attach"](runs, name, attempt, positions, listener, handle)
    finally:
        if run is not None:
            run.attempt = max(run.attempt, attempt)


def _the_future_is_known(run, positions):
    return len(positions) == len(run._begins)


def _what_ended_elsewhere_is_said_to_be_told(run, positions):
    positions = [
        1 if log is None else position
        for log, position in zip(run.request.logs, positions, strict=False)
    ]
    return len(positions) == len(run._begins) and _real[Run, "knows"](run, positions)


def _all_is_told_again(run, positions, listener, handle):
    for event in (run.told or {}).values():
        listener.put(handle, positions[event.choice], worker_runs._copy(event))


class _Through:
    """A listener that is told something else."""

    def __init__(self, listener, change):
        self.change = change
        self.listener = listener

    def put(self, handle, position, event):
        self.listener.put(handle, position, self.change(event))

    def fail(self, handle, error):
        self.listener.fail(handle, error)


def _a_finish_is_not_told_again(run, positions, listener, handle):
    through = _Through(listener, lambda event: replace(event, finish=None))
    _real[Run, "tell_again"](run, positions, through, handle)


def _logprobs_change_places(run, positions, listener, handle):
    through = _Through(
        listener,
        lambda event: replace(event, logprobs=event.logprobs and event.logprobs[::-1]),
    )
    _real[Run, "tell_again"](run, positions, through, handle)


def _lists_are_shared(event):
    return replace(event)


def _the_task_is_cancelled_before_it_begins(runs, run, choice):
    if choice is None and run.task is not None and not run.begun:
        run.task.cancel()
    _real[Runs, "cancel"](runs, run, choice)


def _watchers_end_it_for_all(session, handle):
    run = session._runs.pop(handle, None)
    if run is not None:
        session._all.cancel(run, None)


def _nobody_is_waited_for(runs, run, listener, handle):
    _real[Runs, "leave"](runs, run, listener, handle)
    runs.cancel(run, None)


def _it_is_kept_for_ever(runs, run):
    return None


def _bytes_are_never_taken_off(runs, run):
    counted = runs._bytes
    _real[Runs, "_forget"](runs, run)
    runs._bytes = counted


def _the_newest_are_forgotten(runs, run):
    ended = [each for each in runs._kept.values() if each.task is None]
    victim = ended[-1] if runs._bytes > worker_runs._KEPT_BYTES and ended else run
    _real[Runs, "_forget"](runs, victim)


def _sessions_remember(session, handle):
    session.wake()


def _what_waits_is_overwritten(session, handle, position, event):
    session._pending.pop((handle, event.choice), None)
    _real[Session, "put"](session, handle, position, event)


def _what_merges_has_the_last_position(session, handle, position, event):
    _real[Session, "put"](session, handle, position, event)
    session._pending[handle, event.choice].position = position


MUTANTS = {
    "who is replaced still holds its handle": (Runs, "_hand_over", _nobody_is_replaced),
    "who is replaced hears nothing": (Runs, "_hand_over", _who_is_replaced_hears_nothing),
    "after the end it is told as taken": (
        Runs, "_hand_over", _who_is_replaced_after_the_end_hears_so,
    ),
    "an equal attempt is let in": (Runs, "attach", _equal_attempts_are_let_in),
    "a refused attempt counts": (Runs, "attach", _a_refused_attempt_counts),
    "any position is believed": (Run, "knows", _the_future_is_known),
    "what ended elsewhere is nobody's": (Run, "knows", _what_ended_elsewhere_is_said_to_be_told),
    "all is told again": (Run, "tell_again", _all_is_told_again),
    "a finish is not told again": (Run, "tell_again", _a_finish_is_not_told_again),
    "logprobs are told in another order": (Run, "tell_again", _logprobs_change_places),
    "listeners share lists": (worker_runs, "_copy", _lists_are_shared),
    "what has not begun is cancelled": (Runs, "cancel", _the_task_is_cancelled_before_it_begins),
    "who detaches ends it": (Session, "_detach", _watchers_end_it_for_all),
    "nothing outlives a session": (Runs, "leave", _nobody_is_waited_for),
    "nothing is ever forgotten": (Runs, "_expire", _it_is_kept_for_ever),
    "bytes are never taken off": (Runs, "_forget", _bytes_are_never_taken_off),
    "the newest are forgotten": (Runs, "_forget", _the_newest_are_forgotten),
    "a session remembers what has ended": (Session, "ended", _sessions_remember),
    "what waits is overwritten": (Session, "put", _what_waits_is_overwritten),
    "what merges loses its place": (Session, "put", _what_merges_has_the_last_position),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_is_caught(name, monkeypatch):
    """Each bug breaks a log, a book, or who hears of it."""
    owner, attribute, bug = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, bug)
    with pytest.raises(CAUGHT):
        hunt(KeptMachine, examples=8000)
