"""The requests of one started engine: a line in front of it, and a task for each choice.

    open --> line --(admission)--> task: call, read, push --> mailbox
              ^                      |
              '---- ended, started --'--- statistics

All of it lives on the event loop. The engine owns batching and blocks; the order in which choices
come to it is made here, by giving it only what it can begin with at once.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

from engines.api import GenerationRequest, RequestId
from engines.errors import EngineError, InvalidRequest
from engines.mailbox import Mailbox
from engines.self_batching.admission import Admission, Bounds
from engines.self_batching.runs import Run, Told
from engines.self_batching.stats import EngineStats

Follow = Callable[[Run, Told], Coroutine[object, object, None]]
Verdict = Callable[[Run, BaseException], Awaitable[EngineError]]


class Traffic:
    """`follow` pushes all events of a choice, until it is left; whatever ends it, no call stays.

    Cancelling its task is the way out of it, until `follow` gives the run another. `verdict` says
    what the readers of a request are told of an error; where the engine died, it sees to the rest.
    """

    def __init__(self, bounds: Bounds, ageing_s: float, follow: Follow, verdict: Verdict) -> None:
        self.admission: Admission[Run] = Admission(bounds, ageing_s)
        self.stats = EngineStats()  # the newest
        self.outputs = self.hit_tokens = self.query_tokens = 0
        self._follow = follow
        self._verdict = verdict
        self._runs: dict[RequestId, list[Run]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # those that are being left, too
        self._idle = asyncio.Event()  # set while no stream is open
        self._idle.set()
        self._over = False

    def open(self, request: GenerationRequest) -> Mailbox:
        """Put a request, which was checked, in line. Raises InvalidRequest for an id in use."""
        before = self._runs.get(request.id)
        if before and not before[0].box.done:  # else only its calls have still to end
            raise InvalidRequest("a request with this id is already open", param="id")
        box = Mailbox(request, self._abort)
        runs = [Run(box, choice, list(request.logs[choice] or ())) for choice in request.choices]
        self._runs[request.id] = runs
        self._idle.clear()
        for run in runs:
            self.admission.add(run.ticket, time.monotonic())
        self._dispatch()
        return box

    def observe(self, stats: EngineStats) -> None:
        """Take in what the engine tells of itself."""
        self.stats = stats
        self.admission.observe(stats)
        self._dispatch()

    async def idle(self, timeout_s: float) -> None:
        """Wait until no stream is open, for so long at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    def fail_all(self, kind: type[EngineError], message: str) -> None:
        """End every stream with an error; nothing is given to the engine any more."""
        self._over = True
        for runs in list(self._runs.values()):
            self._fail(runs[0].box, kind(message))

    async def left(self, timeout_s: float) -> None:
        """After `fail_all`: wait until nothing is being left any more, for so long at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def close(self) -> None:
        """End what is still being left."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- the way of a choice

    def _dispatch(self) -> None:
        if self._over:
            return
        for ticket in self.admission.admit(time.monotonic()):
            run = ticket.owner
            task = asyncio.get_running_loop().create_task(self._drive(run))
            run.way_out = partial(_cancel, task)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drive(self, run: Run) -> None:
        try:
            await self._follow(run, self._has_told)
        except asyncio.CancelledError:
            if not run.gone:
                raise
        except BaseException as error:  # noqa: BLE001 - what is none of a request ends the engine
            if not run.gone:  # else it is what the engine says of an abort
                self._fail(run.box, await self._verdict(run, error))
        else:
            self._leave(run)

    def _has_told(self, run: Run) -> None:
        self.outputs += 1
        self.admission.told(run.ticket, run.said)
        if run.begun:
            return
        run.begun = True
        cached = run.cached or 0
        self.hit_tokens += cached
        self.query_tokens += len(run.box.request.prompt)
        self.admission.started(run.ticket, cached)
        self._dispatch()

    def _abort(self, request: GenerationRequest, choice: int | None) -> None:
        """Of a mailbox: its reader wants no more of a choice, or of all."""
        for run in list(self._runs.get(request.id, ())):
            if run.box.request is request and choice in (None, run.choice):
                self._leave(run)

    def _leave(self, run: Run) -> None:
        """Take a choice out, whether it has ended or not, and let others in."""
        self.admission.leave(run.ticket)
        run.leave()
        request_id = run.box.request.id
        runs = self._runs.get(request_id, [])
        if run in runs:
            runs.remove(run)
            if not runs:
                del self._runs[request_id]
        if not self._runs:
            self._idle.set()
        self._dispatch()

    def _fail(self, box: Mailbox, error: EngineError) -> None:
        box.fail(error)
        self._abort(box.request, None)


def _cancel(task: asyncio.Task[None]) -> None:
    """From without; a task that leaves itself is at its end."""
    if task is not asyncio.current_task():
        task.cancel()
