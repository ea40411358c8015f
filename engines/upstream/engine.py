"""The `Engine` port over an OpenAI-compatible server: an HTTP stream for each choice.

    generate --> task for each choice: slot, POST /v1/completions, read, push --> mailbox

All of it lives on the event loop. The upstream owns batching, blocks and order; no stream's
failure is another's, so this engine does not die of one.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from engines.admittance import check_request
from engines.api import (
    EngineInfo,
    EngineLoad,
    GenerationRequest,
    RequestId,
    Sampling,
    TokenEvent,
)
from engines.errors import EngineDied, EngineError, EngineUnavailable, InvalidRequest
from engines.limits import Limits
from engines.mailbox import Mailbox
from engines.upstream.client import Client
from engines.upstream.config import UpstreamConfig
from engines.upstream.fields import body, check
from engines.upstream.following import follow
from engines.upstream.reading import Cursor, Nonsense
from engines.upstream.sse import EventReader

_log = logging.getLogger(__name__)

_Refusal = tuple[type[EngineError], str]  # raised afresh for each stream
_STOPPING: _Refusal = (EngineUnavailable, "the engine is stopping")
_BLOCK_SIZE = 16  # of blocks that only the upstream has; enough of them that none is ever missed
_LONGEST_BYTES = 1 << 20  # of an event without ids
_ID_BYTES = 16
_EVENT_BYTES = 4096  # of a generous event for one token, and what a log-probability adds to it
_LOGPROB_BYTES = 256


@dataclass(eq=False, slots=True)
class _Run:
    """One choice on its way."""

    box: Mailbox
    choice: int
    task: asyncio.Task[None] | None = None
    speaks: bool = False  # an event has come


class UpstreamEngine:
    """Implements `Engine` by the server that `config` names; see docs/engines/upstream.md."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._config = config
        self._model = config.model or ""
        self._client: Client | None = None
        self._sizes: tuple[EngineInfo, Limits] | None = None
        self._slots = asyncio.Semaphore(config.max_running)
        self._boxes: dict[RequestId, Mailbox] = {}
        self._runs: dict[RequestId, list[_Run]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # those that are being cancelled, too
        self._idle = asyncio.Event()  # set while no stream is open
        self._idle.set()
        self._refusal: _Refusal | None = (EngineUnavailable, "the engine is not started")
        self._started = False
        self._running = self._waiting = self._waiting_tokens = 0
        self._events = self._hit_tokens = self._query_tokens = 0

    @property
    def info(self) -> EngineInfo:
        return self._told[0]

    @property
    def limits(self) -> Limits:
        """What requests are checked against; constant from the end of `start`."""
        return self._told[1]

    @property
    def _told(self) -> tuple[EngineInfo, Limits]:
        if self._sizes is None:
            raise EngineUnavailable("the engine is not started")
        return self._sizes

    async def start(self) -> None:
        """Ask what is served, and for one token. Raises EngineUnavailable where that fails."""
        if self._started:
            raise RuntimeError("an engine is started once; make a new one")
        self._started = True
        self._client = Client(self._config)
        try:
            self._model, context = await self._client.model(self._config.model)
            self._sizes = _sizes(self._config, self._model, context)
            sampling = Sampling(1, temperature=0.0, stop_tokens=self._config.ends)
            probe = GenerationRequest(RequestId("probe"), (0,), sampling)
            first = _Run(Mailbox(probe, lambda *_: None), 0, speaks=True)
            await self._read(first, self._client)
        except EngineError as error:
            await self._client.aclose()
            raise EngineUnavailable(
                f"the upstream at {self._config.base_url} cannot be used: {error}"
            ) from None
        if self._refusal is _STOPPING:  # meanwhile
            raise EngineUnavailable(_STOPPING[1])
        self._refusal = None

    def generate(self, request: GenerationRequest) -> Mailbox:
        if self._refusal is not None or self._client is None:
            kind, message = self._refusal or _STOPPING
            raise kind(message)
        check_request(request, self.info, self.limits)
        check(request, self._config)
        if request.id in self._boxes:
            raise InvalidRequest("a request with this id is already open", param="id")
        box = self._boxes[request.id] = Mailbox(request, self._abort)
        self._idle.clear()
        runs = self._runs[request.id] = [_Run(box, choice) for choice in request.choices]
        for run in runs:
            self._waiting += 1
            self._waiting_tokens += len(request.prompt)
            run.task = asyncio.get_running_loop().create_task(self._drive(run, self._client))
            self._tasks.add(run.task)
            run.task.add_done_callback(self._tasks.discard)
        return box

    def load(self) -> EngineLoad:
        return EngineLoad(
            running=self._running,
            waiting=self._waiting,
            waiting_tokens=self._waiting_tokens,
            blocks_used=0,
            blocks_total=0 if self._sizes is None else self.limits.num_blocks,
            steps=self._events,
            prefix_hit_tokens=self._hit_tokens,
            prefix_query_tokens=self._query_tokens,
        )

    async def stop(self, grace_s: float) -> None:
        self._started = True  # what was stopped is not started again
        self._refusal = _STOPPING
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_s)
        kind, message = _STOPPING
        for box in list(self._boxes.values()):
            self._fail(box, kind(message))
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._client is not None:
            await self._client.aclose()

    # -- the way of a choice

    async def _drive(self, run: _Run, client: Client) -> None:
        try:
            async with self._slots:
                await self._read(run, client)
        except EngineError as error:
            if isinstance(error, Nonsense):
                _log.error("the upstream at %s lied: %s", self._config.base_url, error)
            self._fail(run.box, error)
        except Exception as error:  # noqa: BLE001 - a stream that nobody ends hangs its reader
            self._fail(run.box, EngineDied(f"the upstream's stream failed: {type(error).__name__}"))
        else:
            self._leave(run)

    async def _read(self, run: _Run, client: Client) -> None:
        """Read a choice to its end. Raises EngineError where it has none."""
        request = run.box.request
        cursor = Cursor(request, run.choice, self._config)
        call = body(request, run.choice, self._config, self._model)

        def push(event: TokenEvent) -> None:
            self._events += 1
            self._has_begun(run)
            run.box.push(event)

        await follow(client.events(call, _reader(request)), cursor, push)
        self._hit_tokens += cursor.cached
        self._query_tokens += len(request.prompt)

    def _has_begun(self, run: _Run) -> None:
        if not run.speaks:
            run.speaks = True
            self._running += 1
            self._waiting -= 1
            self._waiting_tokens -= len(run.box.request.prompt)

    def _abort(self, request: GenerationRequest, choice: int | None) -> None:
        """Of a mailbox: its reader wants no more of a choice, or of all."""
        for run in list(self._runs.get(request.id, ())):
            if run.box.request is request and choice in (None, run.choice):
                self._leave(run)

    def _leave(self, run: _Run) -> None:
        """Take a choice out, whether it has ended or not: its response is closed."""
        if run.task is not None and run.task is not asyncio.current_task():
            run.task.cancel()
        request_id = run.box.request.id
        runs = self._runs.get(request_id, [])
        if run in runs:
            runs.remove(run)
            self._has_begun(run)
            self._running -= 1
            if not runs:
                del self._runs[request_id], self._boxes[request_id]
        if not self._boxes:
            self._idle.set()

    def _fail(self, box: Mailbox, error: EngineError) -> None:
        box.fail(error)
        self._abort(box.request, None)


def _sizes(config: UpstreamConfig, model: str, told: int | None) -> tuple[EngineInfo, Limits]:
    """What is served, and what is refused at once. Raises EngineUnavailable."""
    context = min((size for size in (config.max_context, told) if size), default=0)
    if context < 1:
        raise EngineUnavailable("it does not tell the model's context: max_context must be set")
    blocks = config.max_running * -(-context // _BLOCK_SIZE)
    limits = Limits(
        max_context=context,
        max_running=config.max_running,
        tokens_per_step=config.max_running + context + _BLOCK_SIZE,
        block_size=_BLOCK_SIZE,
        num_blocks=blocks,
        vocab_size=config.vocab_size,
    )
    info = EngineInfo(
        model=model,
        max_context=context,
        vocab_size=config.vocab_size,
        block_size=_BLOCK_SIZE,
        num_blocks=blocks,
        max_running=config.max_running,
        capabilities=config.kind.capabilities,
    )
    return info, limits


def _reader(request: GenerationRequest) -> EventReader:
    """Bounds that no honest stream meets: the prompt is told once, and every token alone."""
    sampling = request.sampling
    token = _EVENT_BYTES + _LOGPROB_BYTES * (sampling.logprobs or 0)
    longest = _LONGEST_BYTES + _ID_BYTES * (len(request.prompt) + sampling.max_tokens)
    return EventReader(event_bytes=longest, stream_bytes=longest + token * sampling.max_tokens)
