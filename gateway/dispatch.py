"""From a job to its frames: admission, the engine's streams, the renderer, and their ends."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from engines.api import Engine, GenerationRequest, TokenEvent, TokenStream
from engines.replicas import ReplicaSet
from engines.worker_runs import Keeping
from gateway.admission import Admission, Ticket
from gateway.auth import ANYBODY, Caller
from gateway.exchange import Exchange
from gateway.limits import Permit
from gateway.merge import Batch, merged
from gateway.metrics import Metrics
from gateway.resuming import not_found
from openai_compat.choice import Ending
from openai_compat.errors import ErrorReply
from openai_compat.job import Job, Usage

Clock = Callable[[], float]

_FOLD_INLINE = 5_000  # logprobs of an answer that are folded on the event loop


@runtime_checkable
class Detachable(Protocol):
    """A stream of a kept request, which may go on unread."""

    def detach(self) -> None:
        """Read no more."""


class Attachable(Protocol):
    """A call that has begun already, and may be gone on with."""

    async def attach(
        self, engine: ReplicaSet, requests: tuple[GenerationRequest, ...], *, watch: bool
    ) -> Sequence[TokenStream]:
        """The streams of its requests from their first tokens. Raises EngineError, NotFound."""


class Call:
    """One admitted job while it runs. Iterate `frames` or await `answer`; close it in any case."""

    def __init__(self, job: Job, streams: Sequence[TokenStream], pulse: "Pulse") -> None:
        self.job = job
        self._streams = streams
        self._pulse = pulse
        self.outlives_reader = False  # whether its requests, which are kept, may go on unread
        self._ended = False

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The SSE frames of a streaming answer; each item ends on an event boundary."""
        yield self.job.renderer.begin()
        async with aclosing(self._rendered()) as rendered:
            async for frames in rendered:
                if frames:
                    yield frames
        finish = self.job.renderer.finish
        yield await asyncio.to_thread(finish) if _is_long(self.job) else finish()

    async def answer(self) -> bytes:
        """The whole answer of a call that does not stream: a fold of the same events."""
        self.job.renderer.begin()
        async with aclosing(self._rendered()) as rendered:
            async for _ in rendered:
                pass
        fold = self.job.renderer.fold
        return await asyncio.to_thread(fold) if _is_long(self.job) else fold()

    def fail(self, error: ErrorReply) -> bytes:
        """The frames of a stream that fails."""
        return self.job.renderer.fail(error)

    async def _rendered(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(merged(self._streams)) as batches:
                async for batch in batches:
                    self._pulse.beat(batch)
                    yield b"".join(self._render(request, event) for request, event in batch)
        except Exception:
            self._ended = True  # and not well: but not for want of a reader
            raise
        self._ended = True

    def _render(self, request: int, event: TokenEvent) -> bytes:
        rendered = self.job.renderer.feed(request, event)
        for choice in rendered.ended:
            self._streams[request].end_choice(choice)
        if rendered.finish is not None:
            self._pulse.finished(rendered.finish)
        return rendered.frames

    def note(self) -> None:
        """Note what it has used by now: its request ends, and it goes on."""
        self._pulse.note()

    async def aclose(self) -> None:
        """Abort what still runs and give the admission back. Idempotent."""
        goes_on = self.outlives_reader and not self._ended
        self._pulse.end(lingers=goes_on)
        for stream in self._streams:
            if goes_on and isinstance(stream, Detachable):
                stream.detach()
            else:
                await stream.aclose()


def _is_long(job: Job) -> bool:
    """Whether the end would hold up every other stream: about 0.4 us for each logprob told."""
    first, usage = job.requests[0], job.renderer.usage  # what is asked is the same for all
    said = _entries(first.sampling.logprobs) * usage.completion_tokens
    prompts = _entries(first.sampling.prompt_logprobs) * usage.prompt_tokens * first.n
    return said + prompts > _FOLD_INLINE


def _entries(asked: int | None) -> int:
    return 0 if asked is None else asked + 1


class Pulse:
    """Observes one call: times of its tokens, finishes, usage, and its admission ticket."""

    def __init__(
        self, dispatcher: "Dispatcher", job: Job, ticket: Ticket, exchange: Exchange, permit: Permit
    ) -> None:
        self._dispatcher = dispatcher
        self._permit = permit
        self._job = job
        self._ticket = ticket
        self._exchange = exchange
        self._waiting = set(range(len(job.requests)))  # requests without a token yet
        self._last: dict[tuple[int, int], float] = {}

    def beat(self, batch: Batch) -> None:
        """Note a batch of events, now."""
        now = self._dispatcher.clock()
        for request, event in batch:
            if event.tokens:
                self._observe(request, event, now)

    def finished(self, reason: Ending) -> None:
        """Note why a choice ended, as its client is told."""
        self._exchange.finishes.append(reason.value)

    def note(self) -> Usage:
        """Note the usage up to now."""
        usage = self._job.renderer.usage
        self._exchange.prompt_tokens = usage.prompt_tokens
        self._exchange.completion_tokens = usage.completion_tokens
        self._exchange.cached_tokens = usage.cached_tokens
        return usage

    def end(self, *, lingers: bool = False) -> None:
        """Note the usage, and give admission and quota back. Idempotent.

        `lingers`: it goes on unread, so it keeps its place for a while, and all of its quota.
        """
        usage = self.note()
        self._dispatcher.leave(self._job.id, self)
        if lingers:
            self._permit.settle(self._job.most_tokens)
            self._dispatcher.release_later(self._ticket, self._job.id)
        else:
            self._permit.settle(usage.prompt_tokens + usage.completion_tokens)
            self._dispatcher.release(self._ticket)

    def _observe(self, request: int, event: TokenEvent, now: float) -> None:
        before = self._last.get((request, event.choice))
        self._last[request, event.choice] = now
        if before is not None:
            self._dispatcher.metrics.token_gap((now - before) / len(event.tokens))
        elif request in self._waiting:
            self._begin(request, now)

    def _begin(self, request: int, now: float) -> None:
        self._waiting.discard(request)
        prompt = self._job.requests[request].prompt
        self._dispatcher.admission.computed(self._ticket, len(prompt))
        if self._exchange.ttft_s is None:
            self._exchange.ttft_s = now - self._exchange.started
            self._dispatcher.metrics.first_token(self._exchange.ttft_s)


class Dispatcher:
    """Starts jobs on the engine within the admission limits."""

    def __init__(
        self, engine: Engine, admission: Admission, metrics: Metrics, clock: Clock
    ) -> None:
        self._engine = engine
        self._leaves = False  # what goes on unread is left to others
        self._idle = asyncio.Event()
        self._idle.set()
        self._lingering: dict[str, tuple[asyncio.TimerHandle, Ticket]] = {}  # by ids of calls
        self._read: dict[str, Pulse] = {}  # calls, by their ids, and who reads each
        self.admission = admission
        self.metrics = metrics
        self.clock = clock

    def check(self) -> None:
        """Raise Overloaded while there is no room at all, before a body is read."""
        self.admission.check(self.clock())

    async def start(self, job: Job, exchange: Exchange, permit: Permit | None = None) -> Call:
        """Enter the job into the engine. Raises Overloaded or what `generate` raises.

        Its call settles the permit; where this raises, it is still its caller's.
        """
        sequences = sum(request.n for request in job.requests)
        prompt_tokens = sum(len(request.prompt) for request in job.requests)
        ticket = self.enter(sequences, prompt_tokens, exchange.caller)
        streams: list[TokenStream] = []
        try:
            streams.extend(self._engine.generate(request) for request in job.requests)
        except BaseException:
            for stream in streams:
                await stream.aclose()
            self.release(ticket)
            raise
        pulse = Pulse(self, job, ticket, exchange, permit or Permit())
        self._read[job.id] = pulse
        return Call(job, streams, pulse)

    async def resume(
        self, job: Job, kept: Attachable, exchange: Exchange, *, watch: bool = False
    ) -> Call:
        """Go on with a call, from its first token on. Raises EngineError, NotFound.

        `watch`: beside whoever reads it already.
        """
        engine = self._engine
        if not isinstance(engine, ReplicaSet):
            raise not_found()
        sequences = sum(request.n for request in job.requests)
        prompt_tokens = sum(len(request.prompt) for request in job.requests)
        self._end_lingering(job.id)
        ticket = self.admission.rejoin(
            sequences, prompt_tokens, self.clock(), tenant=exchange.caller.tenant
        )
        self._idle.clear()
        try:
            streams = await kept.attach(engine, job.requests, watch=watch)
        except BaseException:
            self.release(ticket)
            raise
        self.metrics.resumed()
        pulse = Pulse(self, job, ticket, exchange, Permit())
        if not watch:
            self._read[job.id] = pulse
        return Call(job, streams, pulse)

    def reads(self, call: str) -> bool:
        """Whether a call of this id is read here, and moves to another worker if its own dies."""
        return call in self._read

    def leave(self, call: str, reader: Pulse) -> None:
        """It is read no more, unless by somebody else. Idempotent."""
        if self._read.get(call) is reader:
            del self._read[call]

    def enter(self, sequences: int, prompt_tokens: int, caller: Caller = ANYBODY) -> Ticket:
        """Count a call in, to be released however it ends. Raises Overloaded."""
        ticket = self.admission.admit(
            sequences, prompt_tokens, self.clock(), tenant=caller.tenant, weight=caller.weight
        )
        self._idle.clear()
        return ticket

    def release(self, ticket: Ticket) -> None:
        """Give a call's admission back. Idempotent."""
        self.admission.release(ticket, self.clock())
        if not self.admission.sequences:
            self._idle.set()

    def release_later(self, ticket: Ticket, call: str) -> None:
        """Give a call's admission back when nobody can have come back to it. Idempotent."""
        self._end_lingering(call)
        if self._leaves:
            self.release(ticket)
            return
        wait_s = Keeping().unheard_s
        timer = asyncio.get_running_loop().call_later(wait_s, self._end_lingering, call)
        self._lingering[call] = timer, ticket

    def _end_lingering(self, call: str) -> None:
        """Nobody comes back to it, or somebody has, with a place of its own."""
        if call in self._lingering:
            timer, ticket = self._lingering.pop(call)
            timer.cancel()
            self.release(ticket)

    async def idle(self) -> None:
        """Wait until no call is in flight; those that go on unread are none of ours from now on."""
        self._leaves = True
        for call in list(self._lingering):
            self._end_lingering(call)
        await self._idle.wait()
