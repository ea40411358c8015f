"""The life of responses: the foreground, the background, the store."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from gateway.dispatch import Call
from gateway.durable.journal import name_of
from gateway.durable.record import RunRecord
from gateway.durable.responses import WrittenResponses, kept
from gateway.durable.written import Writer, WrittenFrames
from gateway.exchange import Exchange
from gateway.responses.following import Follower, LogFollower
from gateway.responses.kept_call import KeptCall, KeptResponse, no_room
from gateway.responses.recollection import Recollection
from gateway.responses.runs import Runs
from gateway.responses.store import ResponseStore, StoreFull
from gateway.rest.sse import Source
from openai_compat.errors import RequestRejected
from openai_compat.job import Job
from openai_compat.responses.lower import ResponseJob
from openai_compat.responses.query import Page, Retrieval
from openai_compat.responses.stored import Key, Past, StoredResponse, check_place, no_response
from openai_compat.unsupported import unsupported

Start = Callable[[Job, Exchange], Awaitable[Call]]


class Responses:
    """Everything about responses that is neither HTTP nor the wire.

    With `written`, those in the background outlive this process, and are there for every other.
    """

    def __init__(
        self,
        store: ResponseStore,
        runs: Runs,
        *,
        keeps: bool,
        written: WrittenResponses | None = None,
    ) -> None:
        self._store = store
        self._runs = runs
        self._written = written
        self._recollection = Recollection(store)
        self.keeps = keeps

    async def foreground(
        self, asked: ResponseJob, exchange: Exchange, start: Start
    ) -> Call | KeptCall:
        """Generate for the connection that asked. Raises Overloaded, and what `start` raises."""
        call = await start(asked.job, exchange)
        if not asked.delivery.store:
            return call
        try:
            return KeptCall(await self._keep(asked, exchange.salt), call)
        except BaseException:
            await call.aclose()
            raise

    async def background(
        self, asked: ResponseJob, record: RunRecord, exchange: Exchange, start: Start
    ) -> Follower:
        """Generate apart from any connection; the follower begins with the first event.

        Raises Overloaded, Unavailable, and what `start` raises.
        """
        own = self._runs.exchange(exchange)
        key = Key(exchange.salt, asked.job.id)
        writer = None if self._written is None else await self._written.enter(asked, record)
        if writer is not None:
            asked = kept(asked, writer)
        try:
            call = await start(asked.job, own)
            await self.take(asked, call, writer, own)
        except BaseException:
            if self._written is not None and writer is not None:
                await self._written.forget(writer.name)
            raise
        finally:
            exchange.standing = own.standing  # whoever asked is told of the quota
        return self._follower(key, -1)

    async def take(
        self, asked: ResponseJob, call: Call, writer: Writer | None, exchange: Exchange
    ) -> None:
        """Run a call in the background from now on. Raises Overloaded, and closes it then."""
        try:
            response = await self._keep(asked, exchange.salt)
        except BaseException:
            await call.aclose()
            raise
        source = call if writer is None else WrittenFrames(call, writer)
        self._runs.start(response, source, exchange)

    async def _keep(self, asked: ResponseJob, tenant: bytes) -> KeptResponse:
        """Give a response its place, before it begins."""
        response = StoredResponse(
            Key(tenant, asked.job.id),
            asked.renderer.status,
            asked.renderer.body(),
            asked.input,
            asked.delivery.previous,
            background=asked.delivery.background,
            obfuscated=asked.delivery.obfuscated,
        )
        try:
            await self._store.put(response)
        except StoreFull as full:
            raise no_room(full) from full
        return KeptResponse(asked.renderer, response, self._store)

    async def body(self, key: Key) -> bytes:
        """The response as it is now. Raises NotFound."""
        run = self._runs.get(key)
        if run is not None and not run.left:
            return run.body()
        return (await self._found(key)).body

    async def follow(self, key: Key, asked: Retrieval) -> Source:
        """Its events from a number on. Raises NotFound, or RequestRejected where none were kept."""
        stored = await self._found(key)
        if not stored.background:
            raise RequestRejected(
                "Only a response that was created with background=true can be streamed again.",
                param="stream",
                code="response_not_streamable",
            )
        if asked.obfuscated is not None and asked.obfuscated is not stored.obfuscated:
            raise unsupported("include_obfuscation", " in another way than the response was made")
        run = self._runs.get(key)
        if self._written is not None and (run is None or run.adopted):
            elsewhere = self._elsewhere(key, asked.after)
            await elsewhere.open()
            return elsewhere
        check_place(stored, asked.after)
        return self._follower(key, asked.after)

    def _follower(self, key: Key, after: int) -> Follower:
        elsewhere = None
        if self._written is not None:
            elsewhere = partial(self._elsewhere, key)
        return Follower(key, after, self._store, self._runs, elsewhere)

    def _elsewhere(self, key: Key, after: int) -> LogFollower:
        if self._written is None:
            raise no_response()
        name = name_of(key.tenant, key.id)
        return LogFollower(name, after, self._written.journal, self._written.relower)

    async def cancel(self, key: Key) -> bytes:
        """End a response in the background; one that has ended stays as it is."""
        stored = await self._found(key)
        if not stored.background:
            raise RequestRejected(
                "Only a response that was created with background=true can be cancelled; close the"
                " connection of any other.",
                param="response_id",
                code="response_not_cancellable",
            )
        await self._end(key, stored)
        return (await self._found(key)).body

    async def delete(self, key: Key) -> None:
        """Forget a response; a live one is cancelled first. Raises NotFound."""
        stored = await self._found(key)
        await self._end(key, stored)
        deleted = await self._store.delete(key)
        if self._written is not None and stored.background:
            name = name_of(key.tenant, key.id)
            await self._runs.forget(name)
            await self._written.forget(name)
        elif not deleted:
            raise no_response()

    async def _end(self, key: Key, stored: StoredResponse) -> None:
        """Cancel what is live, wherever it is."""
        run = self._runs.get(key)
        await self._runs.cancel(key)
        if self._written is None or not stored.background or not stored.status.live:
            return
        if run is None or run.left:
            await self._written.cancel(key)

    async def input_items(self, key: Key, page: Page) -> bytes:
        """A page of all that the response was given: what it continued, and its own input."""
        stored = await self._found(key, given=True)
        before: tuple[StoredResponse, ...] = ()
        if stored.previous is not None:
            before = await self._recollection.chain(Key(key.tenant, stored.previous))
        # Many megabytes, in the worst case.
        return await asyncio.to_thread(_listed, (*before, stored), page)

    async def close(self) -> None:
        """End what still runs."""
        await self._runs.close()

    async def _found(self, key: Key, *, given: bool = False) -> StoredResponse:
        stored = await self._store.get(key)
        if stored is None and self._written is not None:
            stored = await self._written.found(key, given=given)
            if stored is None:  # it may have ended between these two looks
                stored = await self._store.get(key)
        if stored is None:
            raise no_response()
        return stored


def _listed(chain: Sequence[StoredResponse], page: Page) -> bytes:
    return page.of([*Past(tuple(chain[:-1])).items(), *chain[-1].input_items()])
