"""Wires what answers /v1/responses: the store, what runs, and what is written down of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from gateway.durable.responses import WrittenResponses
from gateway.lifecycle import Lifecycle
from gateway.metrics import Metrics
from gateway.responses.custody import Custodian
from gateway.responses.recollection import Recollection
from gateway.responses.runs import Runs
from gateway.responses.service import Responses
from gateway.rest.calls import CallRunner
from gateway.rest.responses import relowering
from gateway.settings import Settings
from gateway.shared import Shared


@dataclass(frozen=True, slots=True)
class ResponseParts:
    """What the routes need, and who looks after what runs."""

    responses: Responses
    recollection: Recollection
    custodian: Custodian | None

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """A block in which responses are looked after; what still runs ends with it,
        or is left to other gateways.
        """
        looking = asyncio.create_task(self.custodian.run()) if self.custodian else None
        try:
            yield
        finally:
            if looking is not None:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking
            if self.custodian is not None:
                await self.custodian.leave_all()
            await self.responses.close()


def response_parts(
    settings: Settings,
    lifecycle: Lifecycle,
    metrics: Metrics,
    clock: Callable[[], float],
    shared: Shared,
    calls: CallRunner,
) -> ResponseParts:
    """Wire them; nothing begins yet."""
    keeps = settings.response_store_bytes > 0
    recollection = Recollection(shared.store)
    if shared.durable is None or not keeps:
        runs = Runs(metrics, clock)
        return ResponseParts(Responses(shared.store, runs, keeps=keeps), recollection, None)
    runs = Runs(metrics, clock, shared.durable.leases)
    written = WrittenResponses(shared.durable, relowering(calls, recollection))
    responses = Responses(shared.store, runs, keeps=keeps, written=written)
    custodian = Custodian(runs, shared.store, lifecycle, metrics, written, responses.take)
    return ResponseParts(responses, recollection, custodian)
