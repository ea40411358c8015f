"""The requests of one started engine: a line in front of the server, and a task for each choice.

    open --> line --(admission)--> task: call, read, push --> mailbox
              ^                      |
              '---- ended, started --'

The server takes what it is given in order of arrival, for its protocol has no priority: order is
made here, by giving it only what it can begin with at once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import grpc.aio

from engines.api import GenerationRequest, RequestId
from engines.errors import EngineDied, EngineError, InvalidRequest, RequestFailed
from engines.mailbox import Mailbox
from engines.smg.answer import Lie
from engines.smg.messages import Phrases
from engines.smg.runs import Run, follow
from engines.smg.server import Server
from engines.trtllm.admission import Admission

_log = logging.getLogger(__name__)


class Traffic:
    """Lives on the event loop. `died` hears of what ends the engine."""

    def __init__(
        self,
        server: Server,
        phrases: Phrases,
        ageing_s: float,
        died: Callable[[BaseException], None],
    ) -> None:
        self._server = server
        self._phrases = phrases
        self._died = died
        self.admission: Admission[Run] = Admission(phrases.facts.bounds, ageing_s)
        self.outputs = self.hit_tokens = self.query_tokens = 0
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

    async def idle(self, timeout_s: float) -> None:
        """Wait until no stream is open, for so long at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    def fail_all(self, kind: type[EngineError], message: str) -> None:
        """End every stream with an error; nothing is given to the server any more."""
        self._over = True
        for runs in list(self._runs.values()):
            self._fail(runs[0].box, kind(message))

    async def close(self) -> None:
        """After `fail_all`: tell the server what is aborted, and end the connection."""
        await self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- the way of a choice

    def _dispatch(self) -> None:
        if self._over:
            return
        for ticket in self.admission.admit():
            task = asyncio.get_running_loop().create_task(self._drive(ticket.owner))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drive(self, run: Run) -> None:
        try:
            await follow(run, self._phrases, self._server, self._has_told)
        except asyncio.CancelledError:
            if not run.gone:
                raise
        except BaseException as error:  # noqa: BLE001 - what is none of a request ends the engine
            if not run.gone:  # else it is what the server says of an abort
                self._fail(run.box, await self._verdict(run, error))
        else:
            self._leave(run)

    async def _verdict(self, run: Run, error: BaseException) -> EngineError:
        """What the readers of a request are told; where the engine is dead, all are told."""
        if isinstance(error, RequestFailed | InvalidRequest):
            return error
        if isinstance(error, Lie):
            _log.error("the server lied about request %s: %s", run.box.request.id, error)
            return EngineDied("the server gave what cannot be")
        if isinstance(error, grpc.aio.AioRpcError):
            verdict = await self._server.verdict(error)
            if not isinstance(verdict, EngineDied):
                return verdict
            error = verdict
        self._died(error)
        return EngineDied("the engine failed; see the server log")

    def _has_told(self, run: Run) -> None:
        self.outputs += 1
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
