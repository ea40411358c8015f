"""Responses in the background as the journal has them: for every gateway, whoever generates."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from engines.api import Kept
from gateway.durable.journal import Journal, JournalAway, Leases, Name, Owned, name_of
from gateway.durable.record import RunRecord, unpack_record
from gateway.durable.token_log import TokenLog
from gateway.durable.written import Writer
from openai_compat.errors import Unavailable
from openai_compat.responses.lower import ResponseJob
from openai_compat.responses.snapshot import Status, shown_as
from openai_compat.responses.stored import Key, StoredResponse

Relower = Callable[[RunRecord], Awaitable[ResponseJob]]

_RETRY_S = 2.0
_CANCELLED_WITHIN_S = 10.0  # more than it takes to see that its owner is gone, and to adopt it
_LOOK_S = 0.05


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

    async def enter(self, asked: ResponseJob, record: RunRecord) -> Writer:
        """Write a response down before it begins. Raises Unavailable."""
        name = name_of(record.caller.salt, asked.job.id)
        writer = Writer(self.journal, Owned(name, record.pack()), TokenLog())
        try:
            await self.leases.renew([name])
            await writer.enter()
        except JournalAway as error:
            raise away() from error
        return writer

    async def forget(self, name: Name) -> None:
        """Keep nothing of a response, as far as that can be done now."""
        try:
            await self.journal.forget(name)
            await self.leases.done(name)
        except JournalAway:
            return  # it ends by itself

    async def found(self, key: Key) -> StoredResponse | None:
        """A response as it was written down, while it lives. Raises Unavailable, ApiError."""
        try:
            entry = await self.journal.read(name_of(key.tenant, key.id))
            record = None if entry is None else unpack_record(entry.record)
        except JournalAway as error:
            raise away() from error
        except ValueError:
            return None
        if entry is None or record is None or entry.ending:
            return None  # it was stored before its ending was written
        status = Status.IN_PROGRESS if entry.chunks else Status.QUEUED
        asked = await self.relower(record)
        delivery = asked.delivery
        return StoredResponse(
            key, status, shown_as(record.shown, status), asked.input, delivery.previous,
            background=True, obfuscated=delivery.obfuscated,
        )  # fmt: skip

    async def cancel(self, key: Key) -> None:
        """Have its owner cancel a response; returns when it has ended, or after some seconds."""
        name = name_of(key.tenant, key.id)
        deadline = time.monotonic() + _CANCELLED_WITHIN_S
        try:
            await self.leases.wish(name)
            while time.monotonic() < deadline:
                entry = await self.journal.read(name)
                if entry is None or entry.ending:
                    return
                await asyncio.sleep(_LOOK_S)
        except JournalAway as error:
            raise away() from error


def kept(asked: ResponseJob, writer: Writer) -> ResponseJob:
    """The job of a response that is written down: its worker keeps it, too."""
    requests = tuple(replace(request, kept=Kept(b"")) for request in asked.job.requests)
    return replace(asked, job=writer.logged(replace(asked.job, requests=requests)))


def away() -> Unavailable:
    """What a client is told while nothing can be written down."""
    return Unavailable(
        "Responses in the background are kept in Redis, which gives no answer now.",
        code="store_unavailable",
        retry_after_s=_RETRY_S,
    )
