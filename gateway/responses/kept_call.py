"""A running response and its place in the store: live while it is generated, then as it ended."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from gateway.dispatch import Call
from gateway.replies import reply_for
from gateway.responses.store import ResponseStore, StoreFull
from openai_compat.errors import ErrorReply, Overloaded
from openai_compat.responses.render import ResponseRenderer
from openai_compat.responses.stored import Key, StoredResponse

_log = logging.getLogger("penstock.responses")
_RETRY_S = 5.0  # live responses end all the time; which one next nobody knows


class KeptResponse:
    """Keeps one response in the store up to date."""

    def __init__(
        self, renderer: ResponseRenderer, response: StoredResponse, store: ResponseStore
    ) -> None:
        self.renderer = renderer
        self.key: Key = response.key
        self._response = response
        self._store = store
        self._events = 0

    async def append(self, frames: bytes) -> None:
        """Keep events. Raises StoreFull."""
        events = split(frames)
        await self._store.append(self.key, events)
        self._events += len(events)

    async def settle(self) -> None:
        """Keep the response as it has ended, unless it was deleted meanwhile. Raises StoreFull."""
        if await self._store.get(self.key) is not None:
            await self._store.put(self._now())

    async def give_up(self, error: ErrorReply) -> None:
        """Fail a response whose events cannot all be kept: only those of the failure are."""
        _log.warning("a response in the background is given up: %s", error.message)
        last = self.renderer.fail(error)
        await self._store.delete(self.key)
        try:
            await self._store.put(
                replace(self._now(), events=split(last), first_event=self._events)
            )
        except StoreFull:
            _log.warning("nor did its failure")

    async def drop(self) -> None:
        """Keep it here no longer: another process does."""
        await self._store.drop(self.key)

    async def forget(self) -> None:
        """Keep nothing of it."""
        await self._store.delete(self.key)

    def _now(self) -> StoredResponse:
        return replace(self._response, status=self.renderer.status, body=self.renderer.body())


class KeptCall:
    """A call in the foreground whose response is kept. Implements `sse.Source`.

    The response is in the store before its last event is sent: who reads that may go on from it. A
    stream whose client leaves is cancelled, and is kept as such.
    """

    def __init__(self, kept: KeptResponse, call: Call) -> None:
        self._kept = kept
        self._call = call
        self._settled = False
        self._failure = b""
        self.job = call.job

    async def frames(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._call.frames()) as frames:
                async for some in frames:
                    if not self._kept.renderer.status.live:
                        await self._settle()
                    yield some
        except Exception as error:
            self._failure = self._call.fail(reply_for(error))
            await self._settle()
            raise

    async def answer(self) -> bytes:
        body = await self._call.answer()
        await self._settle()
        return body

    def fail(self, error: ErrorReply) -> bytes:
        return self._failure or self._call.fail(error)

    async def aclose(self) -> None:
        await self._call.aclose()
        if self._settled:
            return
        if not self.job.stream:  # nobody was told its id
            await self._kept.forget()
            return
        if self._kept.renderer.status.live:
            self._kept.renderer.cancel()
        await self._settle()

    async def _settle(self) -> None:
        self._settled = True
        try:
            await self._kept.settle()
        except StoreFull as full:
            _log.warning("a response is not kept: %s", full)
            await self._kept.forget()


def no_room(full: StoreFull) -> Overloaded:
    """What a client is told when the store is full of live responses."""
    return Overloaded(f"There is no room to keep the response: {full}.", retry_after_s=_RETRY_S)


def split(frames: bytes) -> list[bytes]:
    """The events one by one; no line of theirs is empty, as JSON escapes line ends."""
    return [event + b"\n\n" for event in frames.split(b"\n\n")[:-1]]
