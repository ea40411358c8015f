"""A worker that somebody else starts: it comes and goes as it likes, and may be late."""

import asyncio

from engines.remote import RemoteEngine
from engines.wire.channels import Tls
from gateway.opened import Report
from gateway.workers.fleet import Replica


class Elsewhere:
    """A replica at an address."""

    must_start = False

    def __init__(self, address: str, token: str, tls: Tls | None) -> None:
        self.name = address
        self._token = token
        self._tls = tls
        self._tried = False
        self._engine: RemoteEngine | None = None
        self._died = asyncio.Event()

    async def open(self, report: Report) -> Replica:
        """Connect. Raises EngineUnavailable where no worker answers rightly, yet."""
        self._died.clear()
        if not self._tried:
            report("connecting to a worker")  # once: it may take many tries
        self._tried = True
        self._engine = RemoteEngine(
            self.name, token=self._token, tls=self._tls, on_death=lambda _: self._died.set()
        )
        await self._engine.start()
        return Replica(self._engine, self._engine.info.max_context, self._engine.kv)

    async def lost(self) -> bool:
        await self._died.wait()
        return self._engine is not None and self._engine.draining

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop(0)
