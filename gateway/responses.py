"""The life of responses: recalled conversations, the foreground, the background, the store."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gateway.dispatch import Call
from gateway.exchange import Exchange
from gateway.kept_call import KeptCall, KeptResponse, no_room
from gateway.metrics import Metrics
from gateway.response_runs import Follower, Runs
from gateway.response_store import ResponseStore, StoreFull
from gateway.settings import Settings
from openai_compat.errors import RequestRejected
from openai_compat.job import Job
from openai_compat.responses.items import MAX_ITEMS
from openai_compat.responses.lower import ResponseJob
from openai_compat.responses.query import Page, Retrieval
from openai_compat.responses.stored import (
    Key,
    Past,
    StoredResponse,
    check_continued,
    check_place,
    no_previous,
    no_response,
    referred_ids,
)
from openai_compat.unsupported import unsupported

Start = Callable[[Job, Exchange], Awaitable[Call]]

_MAX_CHAIN = MAX_ITEMS // 2  # a response has an item of its own input and one of its output
_MAX_PAST_BYTES = 16 << 20  # more than any context holds; a tenth of a second to read


def stored_responses(
    settings: Settings, metrics: Metrics, clock: Callable[[], float], store: ResponseStore
) -> "Responses":
    """Responses that are kept in a store, if the settings let it have room."""
    return Responses(store, Runs(store, metrics, clock), keeps=settings.response_store_bytes > 0)


class Responses:
    """Everything about responses that is neither HTTP nor the wire."""

    def __init__(self, store: ResponseStore, runs: Runs, *, keeps: bool) -> None:
        self._store = store
        self._runs = runs
        self.keeps = keeps

    async def recall(self, body: Mapping[str, Any], tenant: bytes) -> Past:
        """What a request refers to. Raises NotFound for a previous response that is not there."""
        previous = body.get("previous_response_id")
        chain: tuple[StoredResponse, ...] = ()
        if isinstance(previous, str):
            chain = await self._chain(Key(tenant, previous))
            check_continued(chain[-1])
        keys = [Key(tenant, response) for response in sorted(referred_ids(body))]
        referred = [await self._store.get(key) for key in keys]
        past = Past(chain, tuple(found for found in referred if found is not None))
        if past.size > _MAX_PAST_BYTES:
            raise _too_much("previous_response_id" if chain else "input")
        return past

    async def foreground(
        self, asked: ResponseJob, exchange: Exchange, start: Start
    ) -> Call | KeptCall:
        """Generate for the connection that asked. Raises Overloaded, and what `start` raises."""
        call = await start(asked.job, exchange)
        if not asked.delivery.store:
            return call
        return KeptCall(await self._keep(asked, call, exchange.salt))

    async def background(self, asked: ResponseJob, exchange: Exchange, start: Start) -> Follower:
        """Generate apart from any connection; the follower begins with the first event.

        Raises Overloaded, and what `start` raises.
        """
        own = self._runs.exchange(exchange)
        try:
            call = await start(asked.job, own)
        finally:
            exchange.standing = own.standing  # whoever asked is told of the quota
        kept = await self._keep(asked, call, exchange.salt)
        self._runs.start(kept, own)
        return Follower(kept.key, -1, self._store, self._runs)

    async def _keep(self, asked: ResponseJob, call: Call, tenant: bytes) -> KeptResponse:
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
            await call.aclose()
            raise no_room(full) from full
        return KeptResponse(call, asked.renderer, response, self._store)

    async def body(self, key: Key) -> bytes:
        """The response as it is now. Raises NotFound."""
        stored = await self._found(key)
        run = self._runs.get(key)
        return stored.body if run is None else run.body()

    async def follow(self, key: Key, asked: Retrieval) -> Follower:
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
        check_place(stored, asked.after)
        return Follower(key, asked.after, self._store, self._runs)

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
        await self._runs.cancel(key)
        return (await self._found(key)).body

    async def delete(self, key: Key) -> None:
        """Forget a response; a live one is cancelled first. Raises NotFound."""
        await self._runs.cancel(key)
        if not await self._store.delete(key):
            raise no_response()

    async def input_items(self, key: Key, page: Page) -> bytes:
        """A page of all that the response was given: what it continued, and its own input."""
        await self._found(key)
        chain = await self._chain(key)
        return await asyncio.to_thread(_listed, chain, page)  # many megabytes, in the worst case

    async def close(self) -> None:
        """End what still runs."""
        await self._runs.close()

    async def _found(self, key: Key) -> StoredResponse:
        stored = await self._store.get(key)
        if stored is None:
            raise no_response()
        return stored

    async def _chain(self, key: Key) -> tuple[StoredResponse, ...]:
        """A response and all it continued, oldest first. Fetched so that the newest is used last.

        Raises NotFound where one is missing, RequestRejected where there are too many.
        """
        chain: list[StoredResponse] = []
        name: str | None = key.id
        while name is not None:
            found = await self._store.get(Key(key.tenant, name))
            if found is None:
                raise no_previous()
            chain.append(found)
            name = found.previous
            if len(chain) > _MAX_CHAIN:
                raise _too_much("previous_response_id")
        return tuple(reversed(chain))


def _listed(chain: Sequence[StoredResponse], page: Page) -> bytes:
    return page.of([*Past(tuple(chain[:-1])).items(), *chain[-1].input_items()])


def _too_much(param: str) -> RequestRejected:
    return RequestRejected(
        f"'{param}' goes back to more than {_MAX_CHAIN} responses or {_MAX_PAST_BYTES} bytes; send"
        " what matters of it as input items.",
        param=param,
        code="context_length_exceeded",
    )
