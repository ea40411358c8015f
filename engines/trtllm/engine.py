"""The `Engine` port over TensorRT-LLM: a line in front of it, and a task for each of its calls.

    generate --> line --(admission)--> task: call, read, push --> mailbox
                  ^                      |
                  '---- ended, started --'--- statistics

All of it lives on the event loop. TensorRT-LLM owns batching and blocks.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from engines.admittance import check_request
from engines.api import EngineInfo, EngineLoad, GenerationRequest, RequestId, Sampling
from engines.errors import (
    EngineDied,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    RequestFailed,
)
from engines.limits import Limits
from engines.mailbox import Mailbox
from engines.trtllm.admission import Admission, Bounds
from engines.trtllm.calls import Calls, is_request_error
from engines.trtllm.config import Config
from engines.trtllm.runs import Run, follow
from engines.trtllm.sampling import Writer
from engines.trtllm.sizes import sizes
from engines.trtllm.stats import EngineStats
from engines.trtllm.watch import Watch

_log = logging.getLogger(__name__)

_Refusal = tuple[type[EngineError], str]  # raised afresh for each stream
_STOPPING: _Refusal = (EngineUnavailable, "the engine is stopping")
_BLOCKS_TOLD_S = 10.0
_FIRST_CALL = GenerationRequest(RequestId("first call"), (0,), Sampling(1, temperature=0.0))


class TrtLlmEngine:
    """Drives an open `tensorrt_llm.LLM`; see docs/engines/tensorrt-llm.md.

    `on_death` is called once, on the loop, when the engine fails: the process should then end,
    since the devices may be held by ranks that do not answer.
    """

    def __init__(
        self,
        calls: Calls,
        config: Config,
        writer: Writer,
        watch: Watch,
        *,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._calls = calls
        self._config = config
        self._writer = writer
        self._watch = watch
        self._on_death = on_death
        self._set_blocks(config.num_blocks or 1)
        self._boxes: dict[RequestId, Mailbox] = {}
        self._runs: dict[RequestId, list[Run]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # those that are being cancelled, too
        self._idle = asyncio.Event()  # set while no stream is open
        self._idle.set()
        self._refusal: _Refusal | None = (EngineUnavailable, "the engine is not started")
        self._alive = True
        self._started = False
        self._open = True
        self._stats = EngineStats()
        self._outputs = self._hit_tokens = self._query_tokens = 0

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def limits(self) -> Limits:
        """What requests are checked against; constant from the end of `start`."""
        return self._limits

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that a finished grammar allows."""
        return self._writer.ends

    async def start(self) -> None:
        """Make one call: the engine tells of itself only after the first.

        Raises EngineDied where that call fails, EngineUnavailable where blocks are not told.
        """
        if self._started:
            raise RuntimeError("an engine is started once; make a new one")
        self._started = True
        first = Run(Mailbox(_FIRST_CALL, lambda *_: None), 0, [])
        try:
            await follow(first, self._writer, self._calls, lambda _: None)
        except Exception as error:
            self._alive = False
            raise EngineDied(f"the engine failed at its first call: {error}") from error
        self._watch.start(self._observe)
        blocks = self._config.num_blocks or await self._watch.num_blocks(_BLOCKS_TOLD_S)
        if blocks is None:
            raise EngineUnavailable("the number of KV blocks is not told: set penstock.num_blocks")
        self._set_blocks(blocks)
        self._refusal = None

    def generate(self, request: GenerationRequest) -> Mailbox:
        if self._refusal is not None:
            kind, message = self._refusal
            raise kind(message)
        check_request(request, self._info, self._limits)
        self._writer.check(request)
        if request.id in self._boxes:
            raise InvalidRequest("a request with this id is already open", param="id")
        box = self._boxes[request.id] = Mailbox(request, self._abort)
        self._idle.clear()
        runs = [Run(box, choice, list(request.logs[choice] or ())) for choice in request.choices]
        self._runs[request.id] = runs
        for run in runs:
            self._admission.add(run.ticket, time.monotonic())
        self._dispatch()
        return box

    def load(self) -> EngineLoad:
        admission = self._admission
        return EngineLoad(
            running=admission.running,
            waiting=admission.waiting,
            waiting_tokens=admission.waiting_tokens,
            blocks_used=min(admission.blocks, self._limits.num_blocks),
            blocks_total=self._limits.num_blocks,
            steps=self._stats.iteration or self._outputs,  # a watchdog must see it work
            prefix_hit_tokens=self._hit_tokens,
            prefix_query_tokens=self._query_tokens,
            alive=self._alive,
        )

    async def stop(self, grace_s: float) -> None:
        self._started = True  # what was stopped is not started again
        if self._alive:
            self._refusal = _STOPPING
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_s)
        self._fail_all(_STOPPING)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s + 1)
        await self._watch.stop()
        if self._open and self._alive:  # a dead engine's shutdown may wait for dead ranks
            self._open = False
            await asyncio.to_thread(self._calls.shutdown)

    # -- the way of a choice

    def _dispatch(self) -> None:
        for ticket in self._admission.admit():
            run = ticket.owner
            run.task = asyncio.get_running_loop().create_task(self._drive(run))
            self._tasks.add(run.task)
            run.task.add_done_callback(self._tasks.discard)

    async def _drive(self, run: Run) -> None:
        try:
            await follow(run, self._writer, self._calls, self._has_told)
        except (RequestFailed, InvalidRequest) as error:
            self._fail(run.box, error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever else it is ends the engine
            if is_request_error(error):
                self._fail(run.box, RequestFailed(str(error)))
            else:
                self._die(error)
        else:
            self._leave(run)

    def _has_told(self, run: Run) -> None:
        self._outputs += 1
        if run.begun:
            return
        run.begun = True
        cached = run.cached or 0
        self._hit_tokens += cached
        self._query_tokens += len(run.box.request.prompt)
        self._admission.started(run.ticket, cached)
        self._dispatch()

    def _observe(self, stats: EngineStats) -> None:
        self._stats = stats
        self._admission.observe(stats)
        self._dispatch()

    def _abort(self, request: GenerationRequest, choice: int | None) -> None:
        """Of a mailbox: its reader wants no more of a choice, or of all."""
        for run in list(self._runs.get(request.id, ())):
            if run.box.request is request and choice in (None, run.choice):
                self._leave(run)

    def _leave(self, run: Run) -> None:
        """Take a choice out, whether it has ended or not, and let others in."""
        self._admission.leave(run.ticket)
        if run.task is not None and run.task is not asyncio.current_task():
            run.task.cancel()
        request_id = run.box.request.id
        runs = self._runs.get(request_id, [])
        if run in runs:
            runs.remove(run)
            if not runs:
                del self._runs[request_id], self._boxes[request_id]
        if not self._boxes:
            self._idle.set()
        if self._alive:
            self._dispatch()

    def _fail(self, box: Mailbox, error: EngineError) -> None:
        box.fail(error)
        self._abort(box.request, None)

    def _die(self, error: BaseException) -> None:
        if not self._alive:
            return
        self._alive = False
        _log.error("the engine failed", exc_info=error)
        self._refusal = (EngineDied, "the engine failed; see the server log")
        self._fail_all(self._refusal)
        if self._on_death is not None:
            self._on_death(error)

    def _fail_all(self, refusal: _Refusal) -> None:
        kind, message = refusal
        for runs in list(self._runs.values()):  # all leave the line before any may be let in
            for run in runs:
                self._admission.leave(run.ticket)
        for box in list(self._boxes.values()):
            self._fail(box, kind(message))

    def _set_blocks(self, num_blocks: int) -> None:
        config = self._config
        self._info, self._limits = sizes(config, self._writer, num_blocks)
        bounds = Bounds(config.max_running, config.max_num_tokens, num_blocks, config.block_size)
        self._admission: Admission[Run] = Admission(bounds, config.own.ageing_s)
