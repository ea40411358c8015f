"""From an HTTP request to a running call and its response: the steps of every generating route."""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from fastapi import Request, Response

from gateway.auth import Caller
from gateway.dispatch import Call
from gateway.exchange import Exchange
from gateway.grammar_check import check_grammar
from gateway.lifecycle import Lifecycle, Serving
from gateway.limits import Limiter, Permit, permit
from gateway.replies import json_response
from gateway.rest.body import BodyReader
from gateway.rest.client_watch import ClientWatch
from gateway.rest.sse import Pace, TokenStreamResponse
from openai_compat.body import parse_body
from openai_compat.job import Job, Prepared
from openai_compat.models import find
from openai_compat.options import requested_model
from openai_compat.purpose import require_generation
from openai_compat.served import CallContext, ServedModel
from openai_compat.vector_job import VectorJob

T = TypeVar("T")
Lowering = Callable[[dict[str, Any], ServedModel, CallContext], T]
Lower = Lowering[Job]
Make = Lowering[Prepared]
# Given a body, the lowering of it and how many bytes that reads besides.
Recall = Callable[[dict[str, Any]], Awaitable[tuple[Lowering[T], int]]]

# Larger bodies are parsed and tokenised off the loop: 1 MiB of text takes about half a second.
_INLINE_BYTES = 8192
_LOWERING_THREADS = 2
_NAMEABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAX_NAMED = 32


@dataclass(frozen=True, slots=True)
class Origin:
    """What a call is made of: the same again makes the same call."""

    body: bytes
    context: CallContext


class CallRunner:
    """Turns a request into a response with one lowering function per route."""

    def __init__(
        self, lifecycle: Lifecycle, reader: BodyReader, pace: Pace, limiter: Limiter
    ) -> None:
        self._lifecycle = lifecycle
        self._limiter = limiter
        self._reader = reader
        self.pace = pace
        self._threads = ThreadPoolExecutor(_LOWERING_THREADS, thread_name_prefix="lowering")

    async def run(self, request: Request, lower: Lower) -> Response:
        """Every refusal happens in here, before the first byte of an answer."""
        raw, serving = await self.arrived(request)
        exchange = Exchange.of(request.scope)
        job = await self.lowered(raw, serving, exchange, new_context(exchange), lower)
        call = await self.start(job, exchange)
        headers = notes(job.ignored)
        if job.stream:
            return TokenStreamResponse(call, self.pace, headers)
        return json_response(await answer(call, request), headers=headers)

    async def arrived(self, request: Request) -> tuple[bytes, Serving]:
        """The body of a call, and what will serve it. Raises ApiError where there is no room."""
        serving = self._lifecycle.serving()
        serving.dispatcher.check()
        async with self._lifecycle.arrival():
            return await self._reader.read(request.headers, request.receive), serving

    async def lowered(
        self, raw: bytes, serving: Serving, exchange: Exchange, context: CallContext, lower: Lower
    ) -> Job:
        """The job of a call on a route that generates."""
        return await self._lowered(raw, serving, exchange, context, _generating(lower))

    async def start(self, job: Job, exchange: Exchange) -> Call:
        """Check its grammar and its key's quota, and enter it into the engine."""
        async with self._lifecycle.arrival():  # it may take longer than a drain
            await check_grammar(self._lifecycle.serving().checker, job.constraint)
            held = await self._permit(exchange, job.most_tokens)
        try:
            # All that may have waited for others: the engine may be draining by now.
            return await self._lifecycle.serving().dispatcher.start(job, exchange, held)
        except BaseException:
            held.settle(0)
            raise

    async def _permit(self, exchange: Exchange, tokens: int) -> Permit:
        """Have a call counted that may use so many tokens. Raises RateLimited."""
        caller = exchange.caller
        if not caller.quota:
            return Permit()
        verdict = await self._limiter.reserve(caller.tenant, caller.quota, tokens)
        exchange.standing = verdict.standing
        return permit(self._limiter, verdict)

    async def recalled(self, request: Request, recall: Recall[T]) -> tuple[T, "Origin"]:
        """For a route whose lowering needs what is stored; starts nothing."""
        raw, serving = await self.arrived(request)
        exchange = Exchange.of(request.scope)
        origin = Origin(raw, new_context(exchange))
        return await self._recalled(origin, serving, exchange, recall), origin

    async def again(self, origin: "Origin", exchange: Exchange, recall: Recall[T]) -> T:
        """The same for a call that was made before, here or elsewhere; without any worker, too."""
        serving = self._lifecycle.loaded or self._lifecycle.serving()
        return await self._recalled(origin, serving, exchange, recall)

    async def _recalled(
        self, origin: "Origin", serving: Serving, exchange: Exchange, recall: Recall[T]
    ) -> T:
        raw = origin.body
        body = await self._worked(len(raw), lambda: parse_body(raw))
        lower, more = await recall(body)

        def work() -> T:
            return _lower(body, serving, exchange, origin.context, lower)

        return await self._worked(len(raw) + more, work)

    async def vectors(self, request: Request, lower: Lowering[VectorJob]) -> Response:
        """For a route that is answered from vectors; like `run`, without a stream."""
        raw, serving = await self.arrived(request)
        exchange = Exchange.of(request.scope)
        job = await self._lowered(raw, serving, exchange, new_context(exchange), lower)
        async with self._lifecycle.arrival():
            held = await self._permit(exchange, job.prompt_tokens)
        try:
            vectors = self._lifecycle.serving().vectors
            async with ClientWatch(request.receive):
                body = await vectors.answer(job, exchange)
        finally:
            held.settle(exchange.prompt_tokens)
        return json_response(body, headers=notes(job.ignored))

    async def prepare(self, request: Request, make: Make) -> Response:
        """For a route that needs the model's text side and not its engine."""
        serving = self._lifecycle.serving()
        async with self._lifecycle.arrival():
            raw = await self._reader.read(request.headers, request.receive)
        exchange = Exchange.of(request.scope)
        prepared = await self._lowered(raw, serving, exchange, new_context(exchange), make)
        return json_response(prepared.body, headers=notes(prepared.ignored))

    async def _lowered(
        self,
        raw: bytes,
        serving: Serving,
        exchange: Exchange,
        context: CallContext,
        lower: Lowering[T],
    ) -> T:
        def parse_and_lower() -> T:
            return _lower(parse_body(raw), serving, exchange, context, lower)

        return await self._worked(len(raw), parse_and_lower)

    async def _worked(self, size: int, work: Callable[[], T]) -> T:
        """Work on so many bytes: here where it is soon done, else in a thread."""
        if size <= _INLINE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def new_context(exchange: Exchange) -> CallContext:
    """What a call brings besides its body: drawn now."""
    # Never the client's x-request-id: two calls may carry the same one.
    exchange.call_id = secrets.token_hex(12)
    now = int(datetime.now(UTC).timestamp())
    return context_of(exchange.call_id, now, secrets.randbits(63), exchange.caller)


def context_of(call_id: str, now: int, seed: int, caller: Caller) -> CallContext:
    """What a call of a caller brings besides its body."""
    return CallContext(
        id=call_id,
        now=now,
        seed=seed,
        cache_salt=caller.salt,
        group_salt=caller.group_salt,
        tenant=caller.tenant,
        weight=caller.weight,
    )


def _lower(
    body: dict[str, Any],
    serving: Serving,
    exchange: Exchange,
    context: CallContext,
    lower: Lowering[T],
) -> T:
    model = find(serving.models, requested_model(body))
    exchange.model = model.name
    return lower(body, model, context)


def _generating(lower: Lower) -> Lower:
    """The lowering of a route whose model must be one that generates."""

    def checked(body: dict[str, Any], model: ServedModel, context: CallContext) -> Job:
        require_generation(model)
        return lower(body, model, context)

    return checked


class Answering(Protocol):
    """What gives one whole answer: a call, in most cases."""

    async def answer(self) -> bytes: ...

    async def aclose(self) -> None:
        """Abort what still runs. Idempotent."""


async def answer(call: Answering, request: Request) -> bytes:
    """The answer of a call; without its client it is aborted."""
    try:
        async with ClientWatch(request.receive):
            return await call.answer()
    finally:
        await call.aclose()


def notes(ignored: Iterable[str]) -> dict[str, str]:
    """The header that lists names nobody knows; only what is harmless in one is repeated."""
    named = [name for name in ignored if _NAMEABLE.fullmatch(name)][:_MAX_NAMED]
    return {"x-ignored-params": ", ".join(named)} if named else {}
