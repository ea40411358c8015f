"""Calls that workers keep: they outlive gateways and readers, and are asked for again by a key."""

import asyncio
import time
from dataclasses import replace

from fastapi import Request, Response

from engines.errors import RequestUnknown
from gateway import claims
from gateway.claims import Claim, Claims, claim_name, used_meanwhile, used_otherwise
from gateway.exchange import Exchange
from gateway.kept_stream import (
    LARGEST_BODY,
    CallRecord,
    Route,
    kept,
    placed,
    read_place,
    stem_of,
)
from gateway.lifecycle import Lifecycle
from gateway.replies import json_response
from gateway.rest import durability
from gateway.rest.calls import CallRunner, Lower, answer, new_context, notes
from gateway.rest.client_watch import ClientGone, ClientWatch
from gateway.rest.durability import Durability, Wish, is_kept, read_durability, stream_headers
from gateway.rest.outliving import Outliving
from gateway.rest.sse import TokenStreamResponse
from gateway.resuming import Resumable, find_call, find_soon, not_found
from openai_compat.cursor import Cursor
from openai_compat.errors import NotFound, RequestRejected
from openai_compat.job import Job
from openai_compat.served import CallContext

_BEGINS_WITHIN_S = 3.0  # a call that was claimed and is nowhere after that has not come to be
_LOOK_S = 0.05


class KeptCalls:
    """The chat and completion routes, with what they do for streams and keys."""

    def __init__(self, lifecycle: Lifecycle, calls: CallRunner, claims: Claims) -> None:
        self._lifecycle = lifecycle
        self._calls = calls
        self._claims = claims

    async def run(self, request: Request, lower: Lower, route: Route) -> Response:
        """Every refusal happens in here, before the first byte of an answer."""
        raw, serving = await self._calls.arrived(request)
        wish = Wish(read_durability(request.headers.get(durability.HEADER)))
        key = claims.read_key(request.headers.get(claims.HEADER))
        exchange = Exchange.of(request.scope)
        context = new_context(exchange)
        record = CallRecord(route, context.now, context.seed, exchange.salt, raw)
        if key is None or serving.keeper is None:
            job = await self._calls.lowered(raw, serving, exchange, context, lower)
            if job.stream and wish.keeps(serving, raw):
                job = kept(job, record)
            return await self._begin(request, job, outlives_reader=wish.outlives_reader)
        return await self._once(request, lower, record, context, key, wish)

    async def resume(
        self, request: Request, stream_id: str, lower: Lower, route: Route
    ) -> Response:
        """Go on with a kept stream, behind what its reader says to have."""
        serving = self._lifecycle.serving()
        after = read_place(request.query_params.get("after"), request.headers.get("last-event-id"))
        stem = stem_of(stream_id, route)
        if serving.keeper is None:
            raise not_found()
        salt = Exchange.of(request.scope).salt
        async with ClientWatch(request.receive):  # after a hang, who asked is somewhere else by now
            found = await find_soon(self._lifecycle, stem, route, salt)
        return await self._go_on(request, lower, found, after)

    async def _begin(self, request: Request, job: Job, *, outlives_reader: bool) -> Response:
        exchange = Exchange.of(request.scope)
        call = await self._calls.start(job, exchange)
        call.outlives_reader = outlives_reader and is_kept(job)
        if not job.stream:
            return json_response(await answer(call, request), headers=notes(job.ignored))
        serving = self._lifecycle.serving()
        source = Outliving(call) if is_kept(job) and serving.is_outlived else call
        headers = notes(job.ignored) | stream_headers(job, serving)
        return TokenStreamResponse(source, self._calls.pace, headers)

    async def _once(
        self,
        request: Request,
        lower: Lower,
        record: CallRecord,
        context: CallContext,
        key: str,
        wish: Wish,
    ) -> Response:
        """Begin a call, or go to the one that the key stands for already."""
        if len(record.body) > LARGEST_BODY:
            raise RequestRejected(
                f"A call with an Idempotency-Key has a body of at most {LARGEST_BODY} bytes, not"
                f" {len(record.body)}.",
                code="request_too_large",
            )
        if wish.durability is Durability.NONE:
            raise RequestRejected(
                f"{durability.HEADER}: none keeps no call that an Idempotency-Key could stand for."
            )
        name = claim_name(record.salt, key)
        mine = Claim(context.id, claims.asked_of(record.route, record.body))
        async with ClientWatch(request.receive):
            found = await self._standing(name, mine, record)
        if found is not None:
            return await self._join(request, lower, found, name, mine)
        try:
            return await self._begin_claimed(request, lower, record, context, name, mine)
        except ClientGone:
            raise  # the call goes on, and its key stands for it
        except Exception:
            await self._claims.forget(name, mine)  # nothing was begun, or it has failed
            raise

    async def _join(
        self, request: Request, lower: Lower, found: Resumable, name: str, mine: Claim
    ) -> Response:
        after = read_place(None, request.headers.get("last-event-id"))
        try:
            return await self._go_on(request, lower, found, after, watch=True)
        except (NotFound, RequestUnknown):
            await self._claims.forget(name, Claim(found.stem, mine.asked))  # it can be told no more
            raise

    async def _begin_claimed(
        self,
        request: Request,
        lower: Lower,
        record: CallRecord,
        context: CallContext,
        name: str,
        mine: Claim,
    ) -> Response:
        if "last-event-id" in request.headers:
            raise not_found()  # what its reader has is of a call that is no more
        begun = time.monotonic()
        serving, exchange = self._lifecycle.serving(), Exchange.of(request.scope)
        job = await self._calls.lowered(record.body, serving, exchange, context, lower)
        late = time.monotonic() - begun > _BEGINS_WITHIN_S / 2
        if late and await self._claims.claim(name, mine) != mine:
            raise used_meanwhile()
        return await self._begin(request, kept(job, record), outlives_reader=True)

    async def _standing(self, name: str, mine: Claim, record: CallRecord) -> Resumable | None:
        """The call that a key stands for; None where it stands for ours from now on."""
        seen, deadline = mine, 0.0
        while (standing := await self._claims.claim(name, mine)) != mine:
            if standing.asked != mine.asked:
                raise used_otherwise()
            if (found := await self._found(standing, record)) is not None:
                return found
            now = time.monotonic()
            if standing != seen:
                seen, deadline = standing, now + _BEGINS_WITHIN_S
            elif now > deadline:
                await self._claims.forget(name, standing)
            await asyncio.sleep(_LOOK_S)
        return None

    async def _found(self, standing: Claim, record: CallRecord) -> Resumable | None:
        keeper = self._lifecycle.serving().keeper
        if keeper is None:
            return None
        try:
            return await find_call(keeper, standing.call, record.route, record.salt)
        except NotFound:
            return None

    async def _go_on(
        self,
        request: Request,
        lower: Lower,
        found: Resumable,
        after: Cursor,
        *,
        watch: bool = False,
    ) -> Response:
        """Answer with a call that runs already, or has ended."""
        serving, exchange = self._lifecycle.serving(), Exchange.of(request.scope)
        record = found.record
        drawn = new_context(exchange)
        context = replace(drawn, id=found.stem, now=record.now, seed=record.seed)
        exchange.call_id, exchange.resumed = found.stem, True
        job = await self._calls.lowered(record.body, serving, exchange, context, lower)
        job = placed(job, after) if job.stream else job
        serving = self._lifecycle.serving()
        call = await serving.dispatcher.resume(job, found, exchange, watch=watch)
        call.outlives_reader = True
        if not job.stream:
            return json_response(await answer(call, request), headers=notes(job.ignored))
        source = Outliving(call) if serving.is_outlived else call
        headers = notes(job.ignored) | stream_headers(job, serving, resumed=True)
        return TokenStreamResponse(source, self._calls.pace, headers)
