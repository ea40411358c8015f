"""Drives a StepRunner with the scheduler in one thread, and hands tokens to the event loop.

    event loop                              engine thread
    generate, abort --> inbox ------------> take messages
                                            plan -> launch -> collect -> apply
    mailboxes <-- one call per step ------- deliver

The thread owns the scheduler and the runner; the loop owns the mailboxes. Between them go only an
inbox of messages and one `call_soon_threadsafe` per step, once the next one is launched.

Any exception in the thread ends the engine: every open stream fails once, and nothing more is
accepted. There is no going on with a broken device or a broken book-keeping.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from engines.admittance import check_request
from engines.api import (
    Capability,
    EngineInfo,
    EngineLoad,
    GenerationRequest,
    RequestId,
)
from engines.errors import (
    EngineDied,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    RequestFailed,
)
from engines.grammar.compiler import Grammar, GrammarCompiler
from engines.kv_changes import KvChange, KvListener
from engines.kv_telling import KvTelling
from engines.limits import Limits
from engines.mailbox import Mailbox
from engines.outcome import StepOutcome
from engines.scheduler import Scheduler
from engines.step import LaunchesAhead, MovesBlocks, StepPlan, StepRunner
from engines.tiers.disk import DiskAnswer, WasRead, WasWritten
from engines.tiers.keeper import Keeper, TierState
from engines.tiers.loads import tier_loads
from kvcache.naming import namespace
from kvcache.pool import BlockPool

if TYPE_CHECKING:
    from concurrent.futures import Future

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: RequestId
    choice: int | None


class _FollowKv:
    """Somebody wants to know which blocks there are."""


class _Stop:
    """The last message."""


Message = GenerationRequest | _Abort | _FollowKv | DiskAnswer | _Stop
_Told = tuple[StepOutcome, list[KvChange]]  # by a step
_Refusal = tuple[type[EngineError], str]  # raised afresh for each stream
_LAST_STEP_S = 5.0  # a step takes milliseconds to a second; longer means a stuck device
_STOPPING: _Refusal = (EngineUnavailable, "the engine is stopping")


class SteppedEngine:
    """The `Engine` port over our own scheduler and any StepRunner.

    `info` and `limits` must agree; `on_death` is called once, on the loop, when the engine fails.
    `grammars` compiles what requests bring, and is the engine's to close; the runner takes its
    matchers from the same one. `keeper` keeps what the cache has no room for, if the runner can
    move blocks; it is the engine's to start and to close.
    """

    def __init__(
        self,
        info: EngineInfo,
        limits: Limits,
        runner: StepRunner,
        *,
        grammars: GrammarCompiler | None = None,
        keeper: Keeper[Message] | None = None,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        if keeper is not None and not isinstance(runner, MovesBlocks):
            raise ValueError("slower tiers need a runner that moves blocks")
        if grammars is None and Capability.GRAMMAR in info.capabilities:
            raise ValueError("an engine that takes grammars needs a compiler")
        self._info = info
        self._limits = limits
        self._runner = runner
        self._block_bytes = runner.block_bytes if isinstance(runner, MovesBlocks) else 0
        self._grammars = grammars
        self._keeper = keeper
        self._on_death = on_death
        self._namespace = namespace(info.model.encode(), str(limits.block_size).encode())
        pool = BlockPool(limits.num_blocks, limits.block_size)
        tiers = None if keeper is None else keeper.tiers
        self._scheduler = Scheduler(limits, pool, namespace=self._namespace, tiers=tiers)
        self._ahead = runner.launches_ahead if isinstance(runner, LaunchesAhead) else _never
        self._held: _Told | None = None  # by the last step, not yet handed on: the engine thread's
        self._telling: KvTelling | None = None  # the engine thread's; there for a listener
        self._kv_listener: KvListener | None = None
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._boxes: dict[RequestId, Mailbox] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._idle: asyncio.Event | None = None  # set while no stream is open
        self._refusal: _Refusal | None = (EngineUnavailable, "the engine is not started")
        self._alive = True
        self._started = False

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def start(self) -> None:
        if self._started:
            raise RuntimeError("an engine is started once; make a new one")
        self._started = True
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusal = None
        if self._keeper is not None:
            self._keeper.start(self._scheduler.pool, self._namespace, self._inbox.put)
        self._thread = threading.Thread(target=self._run, name="penstock-engine", daemon=True)
        self._thread.start()

    def generate(self, request: GenerationRequest) -> Mailbox:
        if self._refusal is not None:
            kind, message = self._refusal
            raise kind(message)
        check_request(request, self._info, self._limits)
        if request.id in self._boxes:
            raise InvalidRequest("a request with this id is already open", param="id")
        source, grammars = request.sampling.grammar, self._grammars
        if source is not None and grammars is not None:
            request = _ended_by(request, grammars.ends)
        box = self._boxes[request.id] = Mailbox(request, self._abort)
        if self._idle is not None:
            self._idle.clear()
        if source is not None and grammars is not None:
            self._await_grammar(box, grammars.compile(source))
        else:
            self._inbox.put(request)
        return box

    def load(self) -> EngineLoad:
        scheduler = self._scheduler
        counters = scheduler.counters
        return EngineLoad(
            running=scheduler.running,
            waiting=len(scheduler.waiting),
            waiting_tokens=scheduler.waiting.tokens,
            blocks_used=scheduler.pool.num_blocks - scheduler.pool.free,
            blocks_total=scheduler.pool.num_blocks,
            steps=counters.steps,
            preemptions=counters.preemptions,
            prefix_hit_tokens=counters.prefix_hit_tokens,
            prefix_query_tokens=counters.prefix_query_tokens,
            drafted_tokens=counters.drafted_tokens,
            accepted_tokens=counters.accepted_tokens,
            alive=self._alive,
            tiers=tier_loads(scheduler, self._block_bytes),
        )

    def tiers(self) -> TierState | None:
        """How the slower tiers of the KV cache are; None where there are none."""
        return None if self._keeper is None else self._keeper.state

    @property
    def kv_namespace(self) -> bytes:
        return self._namespace if self._info.generates else b""  # else nothing is looked up

    def follow_kv(self, listener: KvListener) -> None:
        if self._kv_listener is not None:
            raise RuntimeError("the KV cache has a listener already")
        self._kv_listener = listener
        self._inbox.put(_FollowKv())

    async def stop(self, grace_s: float) -> None:
        self._started = True  # what was stopped is not started again
        if self._alive:
            self._refusal = _STOPPING
        if self._idle is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)
        self._fail_all(_STOPPING)
        if self._thread is not None:
            self._inbox.put(_Stop())
            await self._ended(self._thread)
            self._thread = None
        self._runner.close()
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.close)
        if self._grammars is not None:
            self._grammars.close()

    async def _ended(self, thread: threading.Thread) -> None:
        """Wait for the step in flight, but not for ever: the thread is a daemon, and is left.

        Raises EngineDied if it is stuck; the runner is then left as it is.
        """
        deadline = time.monotonic() + _LAST_STEP_S
        while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            await asyncio.to_thread(thread.join, min(0.5, left))
        if thread.is_alive():
            raise EngineDied(f"the last step has not ended in {_LAST_STEP_S:g} s")

    # -- on the event loop

    def _abort(self, request: GenerationRequest, choice: int | None) -> None:
        self._inbox.put(_Abort(request.id, choice))
        self._forget_done(self._boxes.get(request.id))

    def _await_grammar(self, box: Mailbox, compiling: "Future[Grammar]") -> None:
        """Let a request in when its grammar is there: the engine thread never compiles."""
        if compiling.done():
            self._let_in(box, compiling)
        else:
            compiling.add_done_callback(lambda done: self._post(partial(self._let_in, box), done))

    def _let_in(self, box: Mailbox, compiled: "Future[Grammar]") -> None:
        if box.done:
            return  # closed while it was compiled
        error = compiled.exception()
        if error is None:
            box.grammar = compiled.result()
            self._inbox.put(box.request)
            for choice in box.ended:
                self._inbox.put(_Abort(box.request.id, choice))
            return
        if not isinstance(error, InvalidRequest):
            _log.error("a grammar could not be compiled", exc_info=error)
        message = str(error) if isinstance(error, InvalidRequest) else "the grammar cannot be used"
        box.fail(InvalidRequest(message, param="grammar"))
        self._forget_done(box)

    def _forget_done(self, box: Mailbox | None) -> None:
        if box is not None and box.done:
            self._boxes.pop(box.request.id, None)
            if not self._boxes and self._idle is not None:
                self._idle.set()

    def _deliver(self, told: _Told) -> None:
        outcome, changes = told
        for change in changes:
            self._tell_kv(change)
        for index, sequence in enumerate(outcome.sequences):
            box = self._boxes.get(sequence.request.id)
            if box is None or box.request is not sequence.request:
                continue  # closed while the step ran; the id may be in use again
            failure = outcome.failure(index)
            if failure is None:
                box.push(outcome.event(index))
            else:
                self._inbox.put(_Abort(box.request.id, None))
                box.fail(RequestFailed(failure))
            self._forget_done(box)

    def _tell_kv(self, change: KvChange) -> None:
        if self._kv_listener is not None:
            self._kv_listener(change)

    def _die(self, error: BaseException) -> None:
        self._refusal = (EngineDied, "the engine failed; see the server log")
        self._fail_all(self._refusal)
        if self._on_death is not None:
            self._on_death(error)

    def _fail_all(self, refusal: _Refusal) -> None:
        kind, message = refusal
        boxes, self._boxes = list(self._boxes.values()), {}
        for box in boxes:
            self._inbox.put(_Abort(box.request.id, None))
            box.fail(kind(message))
        if self._idle is not None:
            self._idle.set()

    # -- on the engine thread

    def _run(self) -> None:
        try:
            while self._take_messages():
                begun = time.perf_counter()
                plan = self._scheduler.plan()
                if not self._ahead(plan):
                    self._tell()
                ticket = self._runner.launch(plan)
                self._tell()
                result = self._runner.collect(ticket)
                outcome = self._scheduler.apply(plan, result, time.perf_counter() - begun)
                if self._keeper is not None:
                    self._keeper.hand_over()
                changes = [] if self._telling is None else self._telling.take()
                self._held = outcome, changes
            self._tell()
            if self._keeper is not None and isinstance(self._runner, MovesBlocks):
                self._keeper.save_device(self._runner.read_blocks)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the engine, said once
            self._alive = False
            _log.exception("the engine failed")
            self._tell()
            self._post(self._die, error)

    def _tell(self) -> None:
        """Hand what the last step said to the event loop, once: when the next one is under way.

        The loop wakes up with it and takes the interpreter's lock, for which a device would wait.
        """
        told, self._held = self._held, None
        if told is not None:
            self._post(self._deliver, told)

    def _take_messages(self) -> bool:
        """Take all that has come in; wait for something while there is nothing to do."""
        keeper = self._keeper
        while True:
            try:
                message = self._next_message()
            except queue.Empty:
                for late in () if keeper is None else keeper.overdue():
                    self._take(late)
                if self._scheduler.has_work:
                    return True
                continue
            match message:
                case _Stop():
                    return False
                case GenerationRequest() if keeper and keeper.holds(message, message.id, message):
                    pass  # until the disk has answered
                case _Abort() if keeper and keeper.holds(message, message.request_id):
                    pass
                case WasRead() | WasWritten() if keeper is not None:
                    for released in keeper.hear(message):
                        self._take(released)
                case _:
                    self._take(message)

    def _next_message(self) -> Message:
        """Waits while there is nothing to compute, for as long as the keeper has patience."""
        idle = not self._scheduler.has_work
        if idle:
            self._tell()
        return self._inbox.get(idle, None if self._keeper is None else self._keeper.patience_s())

    def _take(self, message: Message) -> None:
        match message:
            case GenerationRequest():
                self._scheduler.add(message)
            case _Abort():
                self._scheduler.abort(message.request_id, message.choice)
            case _FollowKv():
                self._gather()

    def _gather(self) -> None:
        """Tell what there is, in every tier; from now on each step tells what it changed."""
        tiers = None if self._keeper is None else self._keeper.tiers
        self._telling = KvTelling(self._scheduler.pool, tiers)
        for change in self._telling.take() or [KvChange()]:
            self._post(self._tell_kv, change)

    def _post(self, callback: Callable[[_T], None], value: _T) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and its readers with it
                self._loop.call_soon_threadsafe(callback, value)


def _never(_plan: StepPlan) -> bool:
    return False


def _ended_by(request: GenerationRequest, ends: frozenset[int]) -> GenerationRequest:
    """The request with the tokens that end a grammar among its stop tokens.

    Where it wanted none of them (ignore_eos), they are said only when the grammar leaves nothing
    else: bans give way to masks.
    """
    sampling = request.sampling
    unwanted = tuple((token,) for token in sorted(ends - sampling.stop_tokens))
    stops, bad_words = sampling.stop_tokens | ends, sampling.bad_words + unwanted
    return replace(request, sampling=replace(sampling, stop_tokens=stops, bad_words=bad_words))
