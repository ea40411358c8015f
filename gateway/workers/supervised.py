"""Starts workers on this machine: each a process of ours, reached by a socket nobody else can open.

What keeps them alive is `fleet.py`; here is one life of one of them.
"""

import asyncio
import secrets
from pathlib import Path

from engines.remote import RemoteEngine
from gateway.config import worker_environment
from gateway.opened import Report
from gateway.settings import Settings, engine_arguments
from gateway.workers.child import WorkerChild
from gateway.workers.devices import share_of, visible_gpus
from gateway.workers.fleet import Replica

_TOKEN_BYTES = 32
_STOP_S = 5.0  # a worker that is told to end has no streams by then
_NOTICE_S = 1.0  # between the end of a process and the end of its session, either way


class Supervised:
    """A replica in a process of ours."""

    must_start = True  # what cannot start here is a setting or a model at fault

    def __init__(self, number: int, settings: Settings, folder: Path) -> None:
        self.name = f"worker-{number}"
        self._number = number
        self._replicas = settings.replicas
        self._shares_gpus = settings.device in ("auto", "cuda")  # else one is named
        self._folder = folder
        self._arguments = engine_arguments(settings)
        self._life = 0
        self._child: WorkerChild | None = None
        self._engine: RemoteEngine | None = None
        self._died = asyncio.Event()

    async def open(self, report: Report) -> Replica:
        """Start a process and connect to it once it serves."""
        self._life += 1
        self._died.clear()
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        address = f"unix:{self._folder / f'{self.name}.{self._life}'}"
        report("starting a worker")
        self._child = await WorkerChild.start(
            (f"--name={self.name}", f"--listen={address}", *self._arguments),
            self._environment(token),
        )
        ready = await self._child.ready(report)
        self._engine = RemoteEngine(ready.address, token=token, on_death=lambda _: self._died.set())
        await self._engine.start()
        return Replica(self._engine, ready.own_context, self._engine.kv)

    def _environment(self, token: str) -> dict[str, str]:
        environ = worker_environment(token)
        gpus = visible_gpus(environ) if self._shares_gpus else []
        return {**environ, **share_of(gpus, self._number, self._replicas)}

    async def lost(self) -> bool:
        if self._child is None:
            return False
        ended = asyncio.create_task(self._child.ended())
        died = asyncio.create_task(self._died.wait())
        try:
            await asyncio.wait({ended, died}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({ended, died}, timeout=_NOTICE_S)
            drained = self._engine is not None and self._engine.draining
            return drained or (ended.done() and ended.result() == 0)
        finally:
            ended.cancel()
            died.cancel()

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        child, self._child = self._child, None
        lost = self._died.is_set()
        if engine is not None:
            await engine.stop(0)
        if child is not None:
            await child.stop(0 if lost else _STOP_S)
