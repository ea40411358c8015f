"""Responses in the background as the journal has them: for every gateway, whoever generates."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec

from engines.api import Kept
from gateway.durable.journal import Journal, JournalAway, Leases, Name, Owned, name_of
from gateway.durable.record import RunRecord, unpack_record
from gateway.durable.token_log import TokenLog
from gateway.durable.written import Writer
from openai_compat.responses.lower import ResponseJob
from openai_compat.responses.snapshot import Status, shown_as
from openai_compat.responses.stored import Key, StoredResponse, no_store

Relower = Callable[[RunRecord], Awaitable[ResponseJob]]

_CANCELLED_WITHIN_S = 10.0  # more than it takes to see that its owner is gone, and to adopt it
_LOOK_S = 0.05
_MOST_UNWANTED = 4096


@dataclass(frozen=True, slots=True)
class Durable:
    """Where calls are written down that outlive any process."""

    journal: Journal
    leases: Leases


class WrittenResponses:
    """Begins, finds and cancels responses in the background by what is written of them."""

    def __init__(self, durable: Durable, relower: Relower) -> None:
        self.journal = durable.journal
        self.relower = relower
        self.leases = durable.leases
        self._unwanted: dict[Name, None] = {}  # oldest first

    async def enter(self, asked: ResponseJob, record: RunRecord) -> Writer:
        """Write a response down before it begins. Raises Unavailable."""
        name = name_of(record.caller.salt, asked.job.id)
        writer = Writer(self.journal, Owned(name, record.pack()), TokenLog())
        try:
            await self.leases.renew([name])
        except JournalAway as error:
            raise no_store() from error
        try:
            await writer.enter()
        except JournalAway as error:
            self._want_no_more(name)  # it may be there all the same, and would be adopted
            raise no_store() from error
        return writer

    async def forget(self, name: Name) -> None:
        """Keep nothing of a response: now, or when the journal is back."""
        self._want_no_more(name)
        with suppress(JournalAway):
            await self.forget_again()

    async def forget_again(self) -> None:
        """Forget what could not be forgotten before. Raises JournalAway."""
        for name in list(self._unwanted):
            await self.journal.forget(name)
            await self.leases.done(name)
            self._unwanted.pop(name, None)

    def _want_no_more(self, name: Name) -> None:
        self._unwanted[name] = None
        if len(self._unwanted) > _MOST_UNWANTED:
            del self._unwanted[next(iter(self._unwanted))]

    async def found(self, key: Key, *, given: bool = False) -> StoredResponse | None:
        """A response as it was written down, while it lives. Raises Unavailable, ApiError.

        `given`: with its own input items, for which all must be there that it goes back to.
        """
        try:
            entry = await self.journal.read(name_of(key.tenant, key.id), most=1)
            record = None if entry is None else unpack_record(entry.record)
        except JournalAway as error:
            raise no_store() from error
        except ValueError:
            return None
        if entry is None or record is None or entry.ending:
            return None  # it was stored before its ending was written
        status = Status.IN_PROGRESS if entry.chunks else Status.QUEUED
        body = msgspec.json.decode(record.body)
        return StoredResponse(
            key,
            status,
            shown_as(record.shown, status),
            (await self.relower(record)).input if given else b"[]",
            body.get("previous_response_id"),
            background=True,
            obfuscated=bool((body.get("stream_options") or {}).get("include_obfuscation")),
        )

    async def cancel(self, key: Key) -> None:
        """Have its owner cancel a response; returns when it has ended, or after some seconds."""
        name = name_of(key.tenant, key.id)
        deadline = time.monotonic() + _CANCELLED_WITHIN_S
        try:
            await self.leases.wish(name)
            while time.monotonic() < deadline:
                entry = await self.journal.read(name, most=1)
                if entry is None or entry.ending:
                    await self.leases.done(name)  # its owner may not have seen the wish
                    return
                await asyncio.sleep(_LOOK_S)
        except JournalAway as error:
            raise no_store() from error


def kept(asked: ResponseJob, writer: Writer) -> ResponseJob:
    """The job of a response that is written down: its worker keeps it, too."""
    requests = tuple(replace(request, kept=Kept(b"")) for request in asked.job.requests)
    return replace(asked, job=writer.logged(replace(asked.job, requests=requests)))
