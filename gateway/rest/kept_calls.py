"""Calls that workers keep: they outlive gateways and readers, and are asked for again by a key."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from fastapi import Request, Response

from engines.errors import RequestUnknown
from gateway import claims
from gateway.claims import Claim, Claims, claim_name, used_meanwhile, used_otherwise
from gateway.durable.journal import JournalAway
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
from gateway.lookups import Lookups
from gateway.replies import json_response
from gateway.rest import durability
from gateway.rest.calls import CallRunner, Lower, answer, new_context, notes
from gateway.rest.client_watch import ClientGone, ClientWatch
from gateway.rest.durability import Durability, Wish, is_kept, read_durability, stream_headers
from gateway.rest.durable_calls import DurableCalls
from gateway.rest.outliving import Outliving
from gateway.rest.sse import TokenStreamResponse
from gateway.resuming import Resumable, find_soon, not_found
from openai_compat.cursor import Cursor
from openai_compat.errors import NotFound, RequestRejected
from openai_compat.job import Job
from openai_compat.responses.stored import no_store
from openai_compat.served import CallContext

_BEGINS_WITHIN_S = 3.0  # a call that was claimed and is nowhere after that has not come to be
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A call with an Idempotency-Key, as it would be if it is the first."""

    claim: Claim
    record: CallRecord
    context: CallContext
    wish: Wish


class KeptCalls:
    """The chat and completion routes, with what they do for streams and keys."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        calls: CallRunner,
        claims: Claims,
        durable: DurableCalls | None = None,
    ) -> None:
        self._lifecycle = lifecycle
        self._calls = calls
        self._claims = claims
        self._durable = durable
        # Duplicates come in crowds.
        self._lookups = Lookups[tuple[str, Route, bytes], Resumable](
            lambda call: find_soon(lifecycle, *call)
        )

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
            if job.stream and (durable := self._durable_for(wish)) is not None:
                return await durable.begin(request, job, record, context.id)
            if job.stream and wish.keeps(serving, raw):
                job = kept(job, record)
            return await self._begin(request, job, outlives_reader=wish.outlives_reader)
        claim = Claim(context.id, claims.asked_of(route, raw))
        return await self._once(request, lower, key, _Keyed(claim, record, context, wish))

    async def resume(
        self, request: Request, stream_id: str, lower: Lower, route: Route
    ) -> Response:
        """Go on with a kept stream, behind what its reader says to have."""
        serving = self._lifecycle.serving()
        after = read_place(request.query_params.get("after"), request.headers.get("last-event-id"))
        stem = stem_of(stream_id, route)
        if serving.keeper is None:
            raise not_found()
        if self._durable is not None and stem:
            with suppress(JournalAway):  # then its worker may have it all the same
                response = await self._durable.resume(request, lower, stem, route, after)
                if response is not None:
                    return response
        salt = Exchange.of(request.scope).salt
        async with ClientWatch(request.receive):  # after a hang, who asked is somewhere else by now
            found = await find_soon(self._lifecycle, stem, route, salt)
        return await self._go_on(request, lower, found, after)

    def _durable_for(self, wish: Wish) -> DurableCalls | None:
        """What writes a stream down, where its client wants that. Raises RequestRejected."""
        if wish.durability is not Durability.DURABLE:
            return None
        if self._durable is None:
            raise RequestRejected(
                f"{durability.HEADER}: durable needs a server that was started with --redis.",
                code="durability_unavailable",
            )
        return self._durable

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

    async def _once(self, request: Request, lower: Lower, key: str, call: "_Keyed") -> Response:
        """Begin a call, or go to the one that the key stands for already."""
        record = call.record
        if len(record.body) > LARGEST_BODY:
            raise RequestRejected(
                f"A call with an Idempotency-Key has a body of at most {LARGEST_BODY} bytes, not"
                f" {len(record.body)}.",
                code="request_too_large",
            )
        if call.wish.durability is Durability.NONE:
            raise RequestRejected(
                f"{durability.HEADER}: none keeps no call that an Idempotency-Key could stand for."
            )
        name = claim_name(record.salt, key)
        while True:
            async with ClientWatch(request.receive):
                found = await self._standing(name, call)
            if found is None:
                break
            if isinstance(found, Claim):
                return await self.resume(request, _id_of(found, call), lower, record.route)
            if (response := await self._join(request, lower, found, name, call)) is not None:
                return response
            await asyncio.sleep(_LOOK_S)
        try:
            return await self._begin_claimed(request, lower, name, call)
        except ClientGone:
            raise  # the call goes on, and its key stands for it
        except Exception:
            await self._claims.forget(name, call.claim)  # nothing was begun, or it has failed
            raise

    async def _join(
        self, request: Request, lower: Lower, found: Resumable, name: str, call: "_Keyed"
    ) -> Response | None:
        """Read beside who reads it; None where it is moving, and may be found again."""
        after = read_place(None, request.headers.get("last-event-id"))
        try:
            return await self._go_on(request, lower, found, after, watch=True)
        except (NotFound, RequestUnknown):  # its worker had it a moment ago
            gone = Claim(found.stem, call.claim.asked)
            if self._is_read(gone, call):
                return None
            if await self._is_written(gone, call):
                return await self.resume(request, _id_of(gone, call), lower, call.record.route)
            await self._claims.forget(name, gone)  # it can be told no more
            raise

    async def _begin_claimed(
        self, request: Request, lower: Lower, name: str, call: "_Keyed"
    ) -> Response:
        if "last-event-id" in request.headers:
            raise not_found()  # what its reader has is of a call that is no more
        begun = time.monotonic()
        serving, exchange = self._lifecycle.serving(), Exchange.of(request.scope)
        record, context = call.record, call.context
        job = await self._calls.lowered(record.body, serving, exchange, context, lower)
        late = time.monotonic() - begun > _BEGINS_WITHIN_S / 2
        if late and await self._claims.claim(name, call.claim) != call.claim:
            raise used_meanwhile()
        if job.stream and (durable := self._durable_for(call.wish)) is not None:
            return await durable.begin(request, job, record, context.id)
        return await self._begin(request, kept(job, record), outlives_reader=True)

    async def _standing(self, name: str, call: "_Keyed") -> Resumable | Claim | None:
        """The call that a key stands for; None where it stands for ours from now on.

        A claim, where only the journal has it.
        """
        seen, since = call.claim, 0.0
        while (standing := await self._claims.claim(name, call.claim)) != call.claim:
            if standing.asked != call.claim.asked:
                raise used_otherwise()
            if (found := await self._found(standing, call.record)) is not None:
                return found
            now = time.monotonic()
            if standing != seen:
                seen, since = standing, now
            if not self._is_read(standing, call):
                if await self._is_written(standing, call):
                    return standing
                if now > since + self._patience_s:
                    await self._claims.forget(name, standing)
            await asyncio.sleep(_LOOK_S)
        return None

    @property
    def _patience_s(self) -> float:
        """How long a call that was claimed may be nowhere."""
        keeper = self._lifecycle.serving().keeper
        if keeper is None or self._lifecycle.all_up:
            return _BEGINS_WITHIN_S
        # Its worker may be the one that is away, and another gateway wait for the next.
        return max(_BEGINS_WITHIN_S, keeper.patience.wait_s)

    def _is_read(self, standing: Claim, call: "_Keyed") -> bool:
        """Whether who began it is here: a call whose worker has died will be with another."""
        return self._lifecycle.serving().dispatcher.reads(_id_of(standing, call))

    async def _found(self, standing: Claim, record: CallRecord) -> Resumable | None:
        """Its call, if it is there; a worker that does not answer at once has not said no."""
        try:
            return await self._lookups.find((standing.call, record.route, record.salt))
        except NotFound:
            return None

    async def _is_written(self, standing: Claim, call: "_Keyed") -> bool:
        durable = self._durable_for(call.wish)
        if durable is None:
            return False
        try:
            return await durable.has(standing.call, call.record.route, call.record.salt)
        except JournalAway as error:
            raise no_store() from error

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


def _id_of(claim: Claim, call: _Keyed) -> str:
    return f"{call.record.route}-{claim.call}"
