"""Streams that a client wants to outlive any process: written down, and found by that."""

from collections.abc import Iterator
from dataclasses import replace

from fastapi import Request, Response

from engines.api import GenerationRequest
from engines.replicas import ReplicaSet, find
from gateway.durable.ending import unpack_ending
from gateway.durable.going_on import LoggedCall
from gateway.durable.journal import ENDED_S, Entry, JournalAway, Name, Owned, name_of, read_whole
from gateway.durable.responses import Durable
from gateway.durable.streams import DurableStream, Unread
from gateway.durable.token_log import TokenLog, read_log
from gateway.durable.written import Writer, WrittenFrames
from gateway.exchange import Exchange
from gateway.kept_stream import LARGEST_BODY, CallRecord, Route, kept, unpack
from gateway.lifecycle import Lifecycle
from gateway.rest.calls import CallRunner, Lower, new_context, notes
from gateway.rest.sse import TokenStreamResponse
from gateway.resuming import not_found
from openai_compat.cursor import Cursor
from openai_compat.errors import RequestRejected
from openai_compat.job import Job
from openai_compat.responses.stored import no_store

_MOST_CLAIMS = 3  # of one reader who comes back: others may be as quick


class DurableCalls:
    """Begins durable streams, and goes on with them."""

    def __init__(self, lifecycle: Lifecycle, calls: CallRunner, durable: Durable) -> None:
        self._lifecycle = lifecycle
        self._calls = calls
        self._journal = durable.journal
        self._unread = Unread(lifecycle)

    async def begin(self, request: Request, job: Job, record: CallRecord, stem: str) -> Response:
        """Start a stream. Raises Unavailable where nothing can be written down."""
        exchange = Exchange.of(request.scope)
        if len(record.body) > LARGEST_BODY:
            raise RequestRejected(
                f"A durable call has a body of at most {LARGEST_BODY} bytes, not"
                f" {len(record.body)}.",
                code="request_too_large",
            )
        owned = Owned(name_of(record.salt, stem), record.pack())
        writer = Writer(self._journal, owned, TokenLog())
        try:
            await writer.enter()
        except JournalAway as error:
            raise no_store() from error
        try:
            job = writer.logged(kept(job, record))
            call = await self._calls.start(job, exchange)
        except BaseException:
            await writer.forget()
            raise
        return self._response(job, WrittenFrames(call, writer))

    async def has(self, stem: str, route: Route, salt: bytes) -> bool:
        """Whether a stream is written down. Raises JournalAway."""
        entry = await self._journal.read(name_of(salt, stem), most=1)
        record = None if entry is None else _record(entry)
        return record is not None and record.route is route

    async def resume(
        self, request: Request, lower: Lower, stem: str, route: Route, after: Cursor
    ) -> Response | None:
        """Go on with a stream; None where none is written down that is the caller's.

        Raises JournalAway, RequestRejected for a place that the log does not come to.
        """
        name = name_of(Exchange.of(request.scope).salt, stem)
        for _ in range(_MOST_CLAIMS):
            entry = await read_whole(self._journal, name)
            record = None if entry is None else _record(entry)
            if entry is None or record is None or record.route is not route:
                return None
            job = await self._again(request, lower, stem, record, after)
            # Before it is claimed: who asks for what cannot be told takes it from nobody.
            await self._check_place(job, TokenLog(entry.chunks), after)
            if entry.ending or await self._journal.claim(name, entry.fence):
                return await self._go_on(request, job, name, after)
        raise not_found()

    async def close(self) -> None:
        """Leave what goes on unread."""
        await self._unread.close()

    async def _again(
        self, request: Request, lower: Lower, stem: str, record: CallRecord, after: Cursor
    ) -> Job:
        """The job of a call that was made before, for a reader who is at a place."""
        serving, exchange = self._lifecycle.serving(), Exchange.of(request.scope)
        context = replace(new_context(exchange), id=stem, now=record.now, seed=record.seed)
        exchange.call_id, exchange.resumed = stem, True
        job = await self._calls.lowered(record.body, serving, exchange, context, lower)
        return kept(job, record, after)

    async def _check_place(self, job: Job, log: TokenLog, after: Cursor) -> None:
        """Raises RequestRejected for a place behind the log of which no worker has more."""
        engine = self._lifecycle.serving().engine
        for request, lost in _lost(job, log, after):
            if not isinstance(engine, ReplicaSet) or not await find(engine.engines, request.id):
                raise lost

    async def _go_on(self, request: Request, job: Job, name: Name, after: Cursor) -> Response:
        entry = await read_whole(self._journal, name)  # by now, nobody else can add to it
        if entry is None:
            raise not_found()
        told, log = read_log(entry.chunks, job.requests), TokenLog(entry.chunks)
        owned = Owned(name, entry.record, entry.fence, entry.gaps)
        writer = Writer(self._journal, owned, log)

        async def alone() -> None:
            for _, lost in _lost(job, log, after):
                raise lost
            await writer.gap()

        failed = unpack_ending(entry.ending).error if entry.ending else None
        logged = LoggedCall(told, writer.fence, alone, failed)
        dispatcher = self._lifecycle.serving().dispatcher
        job = writer.logged(job)
        call = await dispatcher.resume(job, logged, Exchange.of(request.scope))
        return self._response(job, WrittenFrames(call, writer))

    def _response(self, job: Job, frames: WrittenFrames) -> Response:
        source = DurableStream(frames, self._unread.add)
        return TokenStreamResponse(source, self._calls.pace, notes(job.ignored) | _headers(job.id))


def _headers(stream_id: str) -> dict[str, str]:
    return {"x-stream-id": stream_id, "x-stream-resume": f"durable; ttl={ENDED_S:g}"}


def _record(entry: Entry) -> CallRecord | None:
    try:
        return unpack(entry.record)
    except ValueError:
        return None  # of a response, or of another version


def _lost(
    job: Job, log: TokenLog, after: Cursor
) -> Iterator[tuple[GenerationRequest, RequestRejected]]:
    """The requests whose place is behind their log, with what a reader is told of that.

    What was told there may be told anew, and otherwise, unless a worker has it.
    """
    per_request = job.requests[0].n
    for index, place in enumerate(after.places):
        known = log.known(index // per_request, index % per_request)
        if place.tokens > known:
            yield (
                job.requests[index // per_request],
                RequestRejected(
                    f"What came after {known} tokens was lost with the processes that told it: go"
                    " on from a place before that, or from the start.",
                    param="after",
                    code="stream_resume_gap",
                    status=409,
                ),
            )
