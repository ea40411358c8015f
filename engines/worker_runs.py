"""The requests of a worker: on the engine, heard by one session each, and kept where that is asked.

    session --submit--> Run --> engine.generate
    session <--events-- Run (a task of its own)
                         | its session breaks, or detaches from it
                         +--> kept: goes on unheard, for a while
    another session --find, attach--> the same Run, from any token on

A kept run remembers all that it has told. Whoever attaches says with which attempt; only a greater
one than before is let in, so that a gateway that hung for a while cannot take its request back.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from engines.api import Engine, GenerationRequest, RequestId, TokenEvent, TokenStream
from engines.errors import (
    EngineDied,
    EngineError,
    EngineUnavailable,
    RequestTaken,
    RequestUnknown,
)

_TAKEN = "another gateway goes on with this request"
_BACK = "this request has come back to the worker, and is told anew"
_GONE = "whoever held this request wants no more of it"
_KEPT_BYTES = 64 << 20  # of runs that have ended: beyond it, the oldest of them are forgotten
_TOKEN_BYTES = 64  # as objects, about
_SCORE_BYTES = 120
_MOST_WATCHERS = 1024  # each gateway lets in fewer, by its own room


class Listener(Protocol):
    """A session, as its runs see it. `handle` is its own name of a run."""

    def put(self, handle: int, position: int, event: TokenEvent) -> None:
        """Take an event whose first token is `position` tokens into its choice's log."""

    def fail(self, handle: int, error: EngineError) -> None:
        """Take the error that a run has ended with."""

    def ended(self, handle: int) -> None:
        """Hear no more of a run."""


class Run:
    """One request on the engine."""

    def __init__(self, request: GenerationRequest, stream: TokenStream) -> None:
        self.request = request
        self.stream = stream
        kept = request.kept
        self.attempt = 0 if kept is None else kept.attempt
        self.heard_by: tuple[Listener, int] | None = None  # who decides over it
        self.watched_by: list[tuple[Listener, int]] = []
        self.told: dict[int, TokenEvent] | None = None if kept is None else {}
        self.failed: EngineError | None = None
        self.begun = False  # its task has had its first turn
        self.over = False  # nothing more comes of it: nobody needs to hear that it goes on without
        self.task: asyncio.Task[None] | None = None  # None: it has ended
        self.timer: asyncio.TimerHandle | None = None  # until it is forgotten
        self._lengths = [len(log or ()) for log in request.logs]
        self._begins = list(self._lengths)  # from where on it can be told again
        self._scores = 0  # log-probabilities that are remembered
        if self.told is not None:
            self._remember_emitted(self.told)

    def _remember_emitted(self, told: dict[int, TokenEvent]) -> None:
        """What another engine had said, as far as it is known: not its log-probabilities."""
        sampling = self.request.sampling
        if sampling.logprobs is not None or sampling.prompt_logprobs is not None:
            return
        for choice, log in enumerate(self.request.logs):
            self._begins[choice] = 0
            if log:
                told[choice] = TokenEvent(choice, list(log), 0)

    @property
    def size(self) -> int:
        """Bytes that it takes to keep it, about."""
        kept = self.request.kept
        context = 0 if kept is None else len(kept.context)
        known = sum(self._lengths) + len(self.request.prompt)
        return context + known * _TOKEN_BYTES + self._scores * _SCORE_BYTES

    def put(self, event: TokenEvent) -> None:
        """Tell an event, and remember it where the run is kept."""
        choice = event.choice
        position = self._lengths[choice]
        self._lengths[choice] += len(event.tokens)
        if self.told is not None:
            scores = (*(event.logprobs or ()), *(event.prompt_logprobs or ()))
            self._scores += sum(1 + len(score.top) for score in scores)
            before = self.told.setdefault(choice, own := _copy(event))
            if before is not own:
                before.merge(own)
        for listener, handle in self.watched_by:
            listener.put(handle, position, _copy(event))  # each merges what it has into its own
        if self.heard_by is not None:
            listener, handle = self.heard_by
            listener.put(handle, position, event)

    async def read(self) -> None:
        """Tell what the engine tells, to its end."""
        async for event in self.stream:
            self.put(event)

    @property
    def listeners(self) -> list[tuple[Listener, int]]:
        """All who hear of it."""
        return [*self.watched_by, *([self.heard_by] if self.heard_by is not None else [])]

    def fail(self, error: EngineError) -> None:
        """Tell the error that ends it."""
        self.failed = error
        for listener, handle in self.listeners:
            listener.fail(handle, error)

    def tell_again(self, positions: Sequence[int], listener: Listener, handle: int) -> None:
        """Tell a listener all that lies behind these positions, and how it ended."""
        for event in (self.told or {}).values():
            begin, known = self._begins[event.choice], positions[event.choice]
            _, rest = event.split(known - begin)
            if rest.tokens or rest.finish is not None:
                listener.put(handle, known, rest)
        if self.failed is not None:
            listener.fail(handle, self.failed)

    def knows(self, positions: Sequence[int]) -> bool:
        """Whether it can tell what lies behind these positions."""
        if len(positions) != len(self._begins):
            return False
        bounds = zip(self._begins, positions, self._lengths, strict=True)
        return all(
            # Of a choice that ended elsewhere nothing is known: whoever comes must have it all.
            position > 0 if log is None else begin <= position <= length
            for log, (begin, position, length) in zip(self.request.logs, bounds, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long kept requests are there for somebody to attach to, in seconds."""

    unheard_s: float = 15.0  # while they run
    ended_s: float = 60.0


class Runs:
    """All requests of one worker. Lives on the event loop.

    `on_empty` is called when nothing runs any more.
    """

    def __init__(self, engine: Engine, keeping: "Keeping", on_empty: Callable[[], None]) -> None:
        self._engine = engine
        self._keeping = keeping
        self._on_empty = on_empty
        self._running: set[Run] = set()
        self._kept: dict[RequestId, Run] = {}
        self._ended: dict[RequestId, Run] = {}  # of these, in the order of their ends
        self._bytes = 0  # of these
        self._numbers = 0

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        return bool(self._running)

    def submit(self, request: GenerationRequest, listener: Listener, handle: int) -> Run:
        """Start a request. Raises what `Engine.generate` raises, and RequestTaken.

        A kept one that is here already has come back: a later attempt takes its place.
        """
        before = self._kept.get(request.id) if request.kept is not None else None
        if before and request.kept and request.kept.attempt <= before.attempt:
            raise RequestTaken(_TAKEN)
        # Ids are each gateway's own: for the engine they only must differ from all others.
        self._numbers += 1
        named = replace(request, id=RequestId(str(self._numbers)))
        run = Run(request, self._engine.generate(named))
        if before is not None:  # only now: what the engine refuses takes nobody's place
            self._hand_over(before, None)
            self._drop(before, EngineUnavailable(_BACK))
        run.heard_by = listener, handle
        self._running.add(run)
        if request.kept is not None:
            self._kept[request.id] = run
        run.task = asyncio.create_task(self._pump(run))
        return run

    def attach(
        self, name: RequestId, attempt: int, positions: Sequence[int], listener: Listener,
        handle: int,
    ) -> Run:  # fmt: skip
        """Hand a kept run to another listener, from these positions on; with 0, have it watch.

        Raises RequestUnknown where none is kept that can tell so much, RequestTaken where the
        attempt is not greater than the last one.
        """
        run = self._kept.get(name)
        if run is None or not run.knows(positions):
            raise RequestUnknown("this worker does not keep that request, or not from there on")
        if not attempt and len(run.watched_by) >= _MOST_WATCHERS:
            raise EngineUnavailable(f"{_MOST_WATCHERS} others watch that request already")
        if not attempt:
            run.watched_by.append((listener, handle))
        elif attempt <= run.attempt:
            raise RequestTaken(_TAKEN)
        else:
            run.attempt = attempt
            self._hand_over(run, (listener, handle))
        if run.timer is not None and run.task is not None:
            run.timer.cancel()
        run.tell_again(positions, listener, handle)
        return run

    def find(self, name: RequestId) -> tuple[int, bytes] | None:
        """The attempt and the context of a kept request; None where there is none."""
        run = self._kept.get(name)
        if run is None or run.request.kept is None:
            return None
        return run.attempt, run.request.kept.context

    def cancel(self, run: Run, choice: int | None) -> None:
        """Its listener wants no more of a choice, or of all: then it is not kept either."""
        if choice is not None:
            run.stream.end_choice(choice)
        else:
            self._drop(run, RequestUnknown(_GONE))

    def _drop(self, run: Run, why: EngineError | None) -> None:
        """Stop a run and forget it; who watches it is told why, or hears it from its session."""
        if not run.over:
            run.over = True
            if why is not None:
                for listener, handle in run.watched_by:
                    listener.fail(handle, why)
            if run.task is not None and run.begun:  # else it would end without closing the stream
                run.task.cancel()
        self._forget(run)

    def leave(self, run: Run, listener: Listener, handle: int) -> None:
        """A listener has gone: without any, it is aborted, or kept for a while."""
        if run.heard_by == (listener, handle):
            run.heard_by = None
        elif (listener, handle) in run.watched_by:
            run.watched_by.remove((listener, handle))
        if run.told is None:
            self.cancel(run, None)
        elif run.task is not None and not run.listeners:
            self._expire(run)

    def close(self) -> None:
        """Abort all of them. Idempotent."""
        for run in [*self._running, *self._kept.values()]:
            self._drop(run, None)

    def _hand_over(self, run: Run, to: tuple[Listener, int] | None) -> None:
        before, run.heard_by = run.heard_by, to
        if before is not None:
            loser, handle = before
            if not run.over:
                loser.fail(handle, RequestTaken(_TAKEN))
            loser.ended(handle)

    async def _pump(self, run: Run) -> None:
        run.begun = True
        try:
            if not run.over:
                await run.read()
        except EngineError as error:
            run.fail(error)
        except Exception as error:  # noqa: BLE001 - an engine that raises what it may not has failed
            run.fail(EngineDied(f"the engine raised {type(error).__name__}"))
        finally:
            run.over = True
            await run.stream.aclose()
            self._note_end(run)

    def _note_end(self, run: Run) -> None:
        for listener, handle in run.listeners:
            listener.ended(handle)
        if run.failed is not None and run.listeners:
            self._forget(run)  # they know, and may ask anew; its bytes have not been counted
        run.task = None
        self._running.discard(run)
        if self._kept.get(run.request.id) is run:
            self._keep_what_ended(run)
        if not self._running:
            self._on_empty()

    def _keep_what_ended(self, run: Run) -> None:
        self._ended[run.request.id] = run
        self._bytes += run.size
        self._expire(run)
        while self._bytes > _KEPT_BYTES:
            self._forget(next(iter(self._ended.values())))

    def _expire(self, run: Run) -> None:
        if run.timer is not None:
            run.timer.cancel()
        loop, keeping = asyncio.get_running_loop(), self._keeping
        within_s = keeping.ended_s if run.task is None else keeping.unheard_s
        run.timer = loop.call_later(within_s, self.cancel, run, None)

    def _forget(self, run: Run) -> None:
        if run.timer is not None:
            run.timer.cancel()
        listeners, run.heard_by, run.watched_by = run.listeners, None, []
        for listener, handle in listeners:
            listener.ended(handle)  # or its session would remember it for as long as it lives
        if self._kept.get(run.request.id) is run:
            del self._kept[run.request.id]
        if self._ended.get(run.request.id) is run:
            del self._ended[run.request.id]
            self._bytes -= run.size


def _copy(event: TokenEvent) -> TokenEvent:
    """The event with lists of its own: those of the original grow when it merges."""
    logprobs = None if event.logprobs is None else list(event.logprobs)
    return replace(event, tokens=list(event.tokens), logprobs=logprobs)
