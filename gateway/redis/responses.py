"""Responses for all gateways: those that have ended are in Redis, the others where they run.

    put, live      here                          get     live here: that; else what Redis has
    put, ended     here, and in Redis            delete  both

What Redis did not take waits here and is sent when it can be. What it took is there as long as it
says so: one that another gateway deleted, or that made room, is gone here as well. While Redis is
down, this gateway still gives what it has.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from gateway.redis.errors import RedisUnusable, Unanswered
from gateway.redis.link import Purpose, RedisLink, Word
from gateway.redis.packed_response import UnknownForm, pack, tag_of, unpack
from gateway.redis.response_index import ResponseIndex, response_key
from gateway.responses.store import MAX_RESPONSES, ResponseStore
from gateway.settings import Settings
from openai_compat.responses.stored import Key, StoredResponse, no_store

_FIRST_REST_S, _LONGEST_REST_S = 0.25, 5.0  # where Redis is up, and refuses
_CLOSE_S = 2.0
_MOST_WITHDRAWN = 1024
_LARGEST = 16 << 20  # bytes that any link carries in the time of a call; nothing larger goes on

_log = logging.getLogger("penstock.responses")


class SharedResponseStore:
    """Implements ResponseStore. At most two commands to keep a response, and two to fetch it."""

    def __init__(
        self, link: RedisLink, local: ResponseStore, index: ResponseIndex, *, ttl_s: float
    ) -> None:
        self._link = link
        self._local = local
        self._index = index
        self._ttl_ms = max(1, round(ttl_s * 1e3))
        self._unsent: dict[Key, None] = {}  # ended here, and not known to be in Redis; oldest first
        self._sending: dict[Key, asyncio.Task[bool]] = {}
        self._underway: dict[Key, asyncio.Future[None]] = {}  # not waited for, and not over
        self._late: asyncio.Task[None] | None = None
        self._withdrawn: dict[Key, None] = {}  # deleted while live: never in Redis
        self._unread = False  # that a value cannot be read was said

    @property
    def unsent(self) -> int:
        """How many have ended that Redis does not have yet."""
        return len(self._unsent)

    async def put(self, response: StoredResponse) -> None:
        self._withdrawn.pop(response.key, None)
        if response.status.live:
            await self._local.put(response)
            return
        key = response.key
        self._unsent[key] = None  # before anybody finds that it has ended
        try:
            await self._local.put(response)
        except BaseException:
            self._unsent.pop(key, None)
            raise
        await asyncio.shield(self._attempt(key))  # whatever becomes of the caller

    async def append(self, key: Key, events: Sequence[bytes]) -> None:
        await self._local.append(key, events)

    async def get(self, key: Key) -> StoredResponse | None:
        """Raises Unavailable where only Redis could tell."""
        found = await self._local.get(key)
        if found is not None and (found.status.live or key in self._unsent):
            return found
        if key in self._withdrawn:
            return None
        try:
            if found is None:
                return await self._fetch(key)
            if await self._touch(found):
                return found
        except RedisUnusable as error:
            if found is None:
                raise no_store() from error
            return found
        await self._local.delete(key)
        return None

    async def delete(self, key: Key) -> bool:
        """Raises Unavailable, and deletes nothing, where Redis cannot be told."""
        found = await self._local.get(key)
        if found is not None and found.status.live:
            self._withdraw(key)
            return await self._local.delete(key)
        if key in self._withdrawn:
            return False
        await self._outlast(key)
        unsent = key in self._unsent
        self._unsent.pop(key, None)  # nor is it sent from now on
        try:
            tag = tag_of(key)
            there = await self._command("UNLINK", tag)
        except RedisUnusable as error:
            if unsent:  # an answer may have been lost: Redis may have it all the same
                self._unsent[key] = None
                self._send_late()
            raise no_store() from error
        self._index.gone(tag)
        await self._local.delete(key)
        return bool(there) or unsent

    async def drop(self, key: Key) -> None:
        await self._local.drop(key)

    async def close(self) -> None:
        """Send what can be sent; the rest ends with the process."""
        sending: set[asyncio.Task[Any]] = {*self._sending.values()}
        if self._late is not None and self._link.up:
            sending.add(self._late)
        if sending:
            await asyncio.wait(sending, timeout=_CLOSE_S)
        if self._late is not None:
            self._late.cancel()
            await asyncio.gather(self._late, return_exceptions=True)
        if self._unsent:
            _log.warning("%d responses end here: Redis did not take them", len(self._unsent))
        await self._index.close()
        await self._local.close()

    # -- fetching

    async def _fetch(self, key: Key) -> StoredResponse | None:
        tag = tag_of(key)
        value = await self._command("GETEX", tag, "PX", self._ttl_ms)
        if value is None:
            return None
        try:
            found = unpack(key, value)
        except UnknownForm as form:
            if not self._unread:
                _log.warning("a stored response cannot be read, and is left out: %s", form)
            self._unread = True
            return None
        self._index.used(tag, found.size)
        return found

    async def _touch(self, found: StoredResponse) -> bool:
        """Whether Redis has it as well, whose copy then lives as long as if it were fetched."""
        tag = tag_of(found.key)
        if not await self._command("PEXPIRE", tag, self._ttl_ms):
            return False
        self._index.used(tag, found.size)
        return True

    async def _command(self, name: str, tag: str, *words: Word) -> Any:
        key = response_key(tag)
        return await self._link.command(name, key, *words, purpose=Purpose.RESPONSES)

    def _withdraw(self, key: Key) -> None:
        """Whoever still generates it asks for it once more, which Redis need not be asked."""
        self._withdrawn[key] = None
        if len(self._withdrawn) > _MOST_WITHDRAWN:
            del self._withdrawn[next(iter(self._withdrawn))]

    # -- sending

    def _attempt(self, key: Key) -> asyncio.Task[bool]:
        """Send one that has ended; what Redis does not take is sent late."""
        if key in self._sending:
            return self._sending[key]
        task = asyncio.create_task(self._sent(key))
        self._sending[key] = task
        task.add_done_callback(lambda _: self._attempted(key, task))
        return task

    def _attempted(self, key: Key, task: asyncio.Task[bool]) -> None:
        del self._sending[key]
        if not task.cancelled() and task.exception() is None and not task.result():
            self._send_late()

    async def _sent(self, key: Key) -> bool:
        """Whether one need not be sent any more."""
        response = await self._local.get(key)
        if response is not None and key in self._unsent:
            try:
                await self._send(response)
            except RedisUnusable as error:
                self._note_failure(key, error)
                return False
        self._unsent.pop(key, None)
        return True

    async def _send(self, response: StoredResponse) -> None:
        if response.size > _LARGEST:
            _log.warning("a response is not kept: it has %d bytes", response.size)
            await self._local.delete(response.key)
            return
        tag = tag_of(response.key)
        await self._index.note(tag, response.size)  # first: without it nobody would count it
        await self._command("SET", tag, pack(response), "PX", self._ttl_ms)

    def _note_failure(self, key: Key, error: RedisUnusable) -> None:
        if self._late is None:
            _log.warning("responses are kept here alone: %s", type(error).__name__)
        if isinstance(error, Unanswered) and error.over is not None:
            self._underway[key] = error.over
            error.over.add_done_callback(lambda _: self._underway.pop(key, None))

    async def _outlast(self, key: Key) -> None:
        """Wait until nothing is under way that would put a response there."""
        for held in (self._sending, self._underway):
            if key in held:
                await asyncio.wait({held[key]})

    def _send_late(self) -> None:
        """Send what is unsent when Redis takes it. Of more than are kept here, the newest."""
        while len(self._unsent) > MAX_RESPONSES:
            del self._unsent[next(iter(self._unsent))]
        if self._late is None:
            self._late = asyncio.create_task(self._go_on_sending())

    async def _go_on_sending(self) -> None:
        sent, rest_s = 0, _FIRST_REST_S
        while self._unsent:
            await self._link.came_up()
            key = next(iter(self._unsent))
            if await asyncio.shield(self._attempt(key)):
                sent, rest_s = sent + 1, _FIRST_REST_S
            else:
                self._unsent[key] = self._unsent.pop(key, None)  # the others first
                await asyncio.sleep(rest_s)
                rest_s = min(2 * rest_s, _LONGEST_REST_S)
        self._late = None
        _log.info("%d responses that Redis lacked are there", sent)


def shared_responses(link: RedisLink, local: ResponseStore, settings: Settings) -> ResponseStore:
    """The store of all gateways over that of this one, unless nothing is to be kept."""
    most, ttl_s = settings.response_store_bytes, settings.response_ttl_s
    if not most:
        return local
    index = ResponseIndex(link, max_bytes=most, ttl_s=ttl_s)
    return SharedResponseStore(link, local, index, ttl_s=ttl_s)
