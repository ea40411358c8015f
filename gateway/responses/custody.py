"""Who takes care of the responses in the background that are written down.

Each has a lease, which its gateway renews. One whose lease has ended is adopted by another gateway,
which goes on with it from its log: at the worker that has it, or anew. A gateway that drains leaves
its own to the others.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.dispatch import Call
from gateway.durable.ending import pack_ending
from gateway.durable.going_on import LoggedCall
from gateway.durable.journal import ENDED_S, Entry, JournalAway, Name, Owned, read_whole
from gateway.durable.record import RunRecord, unpack_record
from gateway.durable.responses import WrittenResponses, kept
from gateway.durable.token_log import TokenLog, read_log
from gateway.durable.written import Writer
from gateway.exchange import Exchange
from gateway.lifecycle import Lifecycle, Phase
from gateway.metrics import Metrics
from gateway.replies import reply_for
from gateway.responses.runs import Runs
from gateway.responses.store import ResponseStore
from openai_compat.errors import ApiError, ErrorReply
from openai_compat.responses.ids import response_id
from openai_compat.responses.lower import ResponseJob
from openai_compat.responses.snapshot import Status, shown_as
from openai_compat.responses.stored import Key, StoredResponse

Adopt = Callable[[ResponseJob, Call, Writer, Exchange], Awaitable[None]]

_LOOK_S = 0.5
_OURS = 500  # from this status on, a refusal is no fault of the call
_QUIET_S = 6.0  # after the journal was away: whoever is alive renews first

_log = logging.getLogger("penstock.durable")


class Custodian:
    """Renews, cancels where somebody wishes it, adopts. `run` goes on for ever."""

    def __init__(
        self,
        runs: Runs,
        store: ResponseStore,
        lifecycle: Lifecycle,
        metrics: Metrics,
        written: WrittenResponses,
        adopt: Adopt,
    ) -> None:
        self._runs = runs
        self._store = store
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._written = written
        self._journal = written.journal
        self._leases = written.leases
        self._relower = written.relower
        self._adopt = adopt
        self._quiet_until = 0.0
        self._taking: set[Name] = set()
        self._cancelling: dict[Name, asyncio.Task[None]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as looks:  # who adopts many keeps what it has meanwhile
            looks.create_task(self._every(self._keep))
            looks.create_task(self._every(self._adopt_due))

    async def leave_all(self) -> None:
        """Leave what runs to other gateways, which may have it at once."""
        written = self._runs.written
        await asyncio.gather(*(self._runs.leave(key) for key in written.values()))
        with suppress(JournalAway):
            await self._leases.release(list(written))

    async def _every(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await look()
            except JournalAway:
                self._quiet_until = time.monotonic() + _QUIET_S
            except Exception:  # noqa: BLE001 - nobody else would look again
                _log.exception("a look after the responses in the background failed")
            await asyncio.sleep(_LOOK_S * random.uniform(0.8, 1.2))

    async def _keep(self) -> None:
        """Renew the leases, and cancel what somebody wants cancelled."""
        if self._lifecycle.phase is Phase.DRAINING:
            await self.leave_all()
            return
        written = self._runs.written
        if kept := [*written, *self._runs.ending, *self._taking]:
            for name in await self._leases.renew(kept):
                if name in written and name not in self._cancelling:
                    self._cancel(name, written[name])
        await self._written.forget_again()

    def _cancel(self, name: Name, key: Key) -> None:
        """Have a run end; an engine that is slow to let it go holds up no lease."""
        task = asyncio.create_task(self._runs.cancel(key))
        self._cancelling[name] = task
        task.add_done_callback(lambda _: self._cancelling.pop(name, None))

    async def _adopt_due(self) -> None:
        if not self._lifecycle.takes_calls or time.monotonic() < self._quiet_until:
            return
        due = await self._leases.due()
        for name in random.sample(due, len(due)):
            if name in self._runs.written or name in self._runs.ending:
                continue
            self._taking.add(name)
            try:
                await self._take(name)
            finally:
                self._taking.discard(name)

    async def _take(self, name: Name) -> None:
        """Go on with a call whose owner is gone, if it is there and nobody else is quicker."""
        seen = await self._journal.read(name, most=1)
        if seen is None or seen.ending:
            await self._leases.done(name)
            return
        try:
            record = unpack_record(seen.record)
            stored = await self._store.get(_key_of(record))
        except (ValueError, ApiError):
            return  # of a later version, which goes on with it; or nobody knows whether it ended
        if stored is not None and not stored.status.live:
            await self._journal.forget(name)  # of its end, only the store knows all
            await self._leases.done(name)
        elif await self._journal.claim(name, seen.fence):
            await self._own(name, record, seen.fence + 1)

    async def _own(self, name: Name, record: RunRecord, fence: int) -> None:
        """Go on with a call that is ours now, or end it."""
        await self._leases.renew([name])
        entry = await read_whole(self._journal, name)  # by now, nobody else can add to it
        if entry is None or entry.fence != fence:
            return
        try:
            await self._go_on(name, entry, record)
        except ApiError as error:
            if error.reply.retryable or error.reply.status >= _OURS:
                return  # somebody tries it when this lease has ended
            await self._fail(name, entry, record, error.reply)
        except ValueError as error:
            _log.exception("the log of a response in the background cannot be read")
            await self._fail(name, entry, record, reply_for(error))

    async def _go_on(self, name: Name, entry: Entry, record: RunRecord) -> None:
        """Raises ApiError."""
        asked = await self._relower(record)
        log = TokenLog(entry.chunks)
        owned = Owned(name, entry.record, entry.fence, entry.gaps)
        writer = Writer(self._journal, owned, log)
        told = read_log(entry.chunks, asked.job.requests)
        serving = self._lifecycle.serving()
        exchange = self._runs.exchange(
            Exchange(
                f"req-{record.stem}", "POST", 0.0, call_id=record.stem, caller=record.caller,
                model=serving.engine.info.model,
            )
        )  # fmt: skip
        exchange.resumed = True
        asked = kept(asked, writer)
        call = await serving.dispatcher.resume(
            asked.job, LoggedCall(told, writer.fence, writer.gap), exchange
        )
        await self._adopt(asked, call, writer, exchange)
        self._metrics.adopted()
        _log.info("a response in the background was adopted after %d tokens", log.length)

    async def _fail(self, name: Name, entry: Entry, record: RunRecord, reply: ErrorReply) -> None:
        """End one that cannot be made again: what it goes back to is gone."""
        _log.warning("a response in the background cannot be gone on with: %s", reply.code)
        key = _key_of(record)
        body = shown_as(record.shown, Status.FAILED, reply)
        await self._store.put(
            StoredResponse(key, Status.FAILED, body, b"[]", None, background=True)
        )
        await self._journal.end(name, entry.fence, pack_ending(Status.FAILED, reply), ENDED_S)
        await self._leases.done(name)


def _key_of(record: RunRecord) -> Key:
    return Key(record.caller.salt, response_id(record.stem))
