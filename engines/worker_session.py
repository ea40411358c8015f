"""One gateway's requests on a worker: commands come in, one frame for each engine step goes out.

Events of a gateway that reads slowly merge, as they do for a slow reader in one process: what waits
here is bounded by the tokens themselves.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from engines.api import EngineLoad, RequestId, TokenEvent
from engines.errors import EngineError, EngineUnavailable, InvalidRequest
from engines.wire.events import delta_message, failure_message, load_message
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.wire.requests import request_of
from engines.worker_runs import Run, Runs

_LARGEST_FRAME = 4 << 20  # bytes, about: far below what a message may have
_TOKEN_BYTES, _SCORE_BYTES = 5, 16
_LOAD_EVERY_S = 0.02  # a load that changed without any token is told this late


@dataclass(slots=True)
class _Pending:
    """Tokens of a choice that the gateway has not got, and where in its log they begin."""

    position: int
    event: TokenEvent


class Session:
    """What one gateway has asked for, and what it has not been told yet."""

    def __init__(
        self, runs: Runs, load: Callable[[], EngineLoad], draining: Callable[[], bool]
    ) -> None:
        self._all = runs
        self._load = load
        self._draining = draining
        self._runs: dict[int, Run] = {}
        self._pending: dict[tuple[int, int], _Pending] = {}
        self._failures: list[pb.Delta] = []
        self._awake = asyncio.Event()
        self._closed = False
        self.unreadable = False  # the gateway sent bytes that are no command frame

    def wake(self) -> None:
        """Have a frame sent now."""
        self._awake.set()

    def obey(self, frame: pb.CommandFrame) -> None:
        """Start, take over and cancel what a gateway asks."""
        for submit in frame.submits:
            self._submit(submit)
        for attach in frame.attaches:
            self._attach(attach)
        for cancel in frame.cancels:
            if cancel.detach:
                self._detach(cancel.handle)
            else:
                self._cancel(cancel.handle, cancel.choice if cancel.HasField("choice") else None)

    async def frames(self) -> AsyncIterator[pb.StepFrame]:
        """One after each step that brought something, and one where only the load has changed."""
        number, told = 0, None
        while not self._closed:
            self._awake.clear()  # before looking: what comes while a frame is sent wakes us again
            load, draining = self._load(), self._draining()
            owed = self._all.busy or self._pending or self._failures
            if told is not None and told[1] and not owed:
                return  # nobody's request is left: until then, what is kept may be attached to
            if self._pending or self._failures or told != (load, draining):
                number += 1
                changed = told is None or told[0] != load
                yield self._frame(number, load if changed else None, draining=draining)
                told = load, draining
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), _LOAD_EVERY_S)

    def close(self) -> None:
        """Leave everything: what is not kept is aborted. Idempotent."""
        self._closed = True
        self.wake()
        runs, self._runs = self._runs, {}
        for handle, run in runs.items():
            self._all.leave(run, self, handle)

    # -- what its runs tell

    def put(self, handle: int, position: int, event: TokenEvent) -> None:
        before = self._pending.get((handle, event.choice))
        if before is None:
            self._pending[handle, event.choice] = _Pending(position, event)
        else:
            before.event.merge(event)
        self.wake()

    def fail(self, handle: int, error: EngineError) -> None:
        self._failures.append(failure_message(handle, error))
        self.wake()

    def ended(self, handle: int) -> None:
        run = self._runs.get(handle)
        if run is not None and (run.told is None or (self, handle) not in run.listeners):
            del self._runs[handle]  # else it is kept, and may be let go of by a cancel
        self.wake()

    # -- what the gateway asks

    def _submit(self, submit: pb.Submit) -> None:
        handle = submit.handle
        if self._closed or handle in self._runs:
            return
        try:
            if self._draining():
                raise EngineUnavailable("this worker is draining")
            request = request_of(submit.request)
            self._runs[handle] = self._all.submit(request, self, handle)
        except EngineError as error:
            self.fail(handle, error)
        except ValueError as error:
            self.fail(handle, InvalidRequest(str(error), param="request"))

    def _attach(self, attach: pb.Attach) -> None:
        handle, name = attach.handle, RequestId(attach.id)
        if self._closed or handle in self._runs:
            return
        try:
            run = self._all.attach(name, attach.attempt, attach.positions, self, handle)
        except EngineError as error:
            self.fail(handle, error)
        else:
            self._runs[handle] = run

    def _detach(self, handle: int) -> None:
        run = self._runs.pop(handle, None)
        if run is not None:
            self._all.leave(run, self, handle)

    def _cancel(self, handle: int, choice: int | None) -> None:
        run = self._runs.get(handle)
        if run is None:
            return  # it has ended meanwhile
        if choice is not None:
            self._pending.pop((handle, choice), None)
            self._all.cancel(run, choice)
        elif run.heard_by == (self, handle):
            self._runs.pop(handle)
            run.heard_by = None
            self._all.cancel(run, None)
        else:
            self._detach(handle)  # who watches has no say over others

    def _deltas(self) -> list[pb.Delta]:
        """What is pending, as far as one frame holds it; the rest wakes the next."""
        deltas, room = [], _LARGEST_FRAME
        for key in list(self._pending):
            one = self._pending.pop(key)
            fits = max(1, room // _token_bytes(one.event))
            event = one.event
            if len(event.tokens) > fits:
                event, rest = event.split(fits)
                self._pending[key] = _Pending(one.position + fits, rest)
                self.wake()
            deltas.append(delta_message(key[0], one.position, event))
            room -= len(event.tokens) * _token_bytes(event)
            if room <= 0 and self._pending:
                self.wake()
                break
        return deltas

    def _frame(self, number: int, load: EngineLoad | None, *, draining: bool) -> pb.StepFrame:
        deltas = self._deltas()
        late = {handle for handle, _ in self._pending}  # there was no room for all of it
        failures = [each for each in self._failures if each.handle not in late]
        self._failures = [each for each in self._failures if each.handle in late]
        frame = pb.StepFrame(number=number, deltas=deltas + failures, draining=draining)
        if load is not None:
            frame.load.CopyFrom(load_message(load))
        return frame


def _token_bytes(event: TokenEvent) -> int:
    """How large a token of an event is in a message, at most, by the first one that it has."""
    scores = event.logprobs
    return _TOKEN_BYTES if not scores else _TOKEN_BYTES + _SCORE_BYTES * (1 + len(scores[0].top))
