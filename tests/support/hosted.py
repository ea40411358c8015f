"""An engine behind a worker and a session, all in this process: the port over a real wire."""

import asyncio
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from engines.errors import EngineError
from engines.kv_changes import KvSource
from engines.remote import RemoteEngine
from engines.wire.facts import WorkerFacts
from engines.worker import WorkerServer
from engines.worker_runs import Keeping

TOKEN = "a token of this test"


class Hosted:
    """The `Engine` that a gateway sees; `inner` is the one that computes."""

    def __init__(self, inner, limits, *, on_death=None, keeping=None):
        self.inner = inner
        self.facts = WorkerFacts(inner.info, limits, "0", 7, frozenset({3}), grammars=True)
        if isinstance(inner, KvSource):
            self.facts = replace(self.facts, kv_namespace=inner.kv_namespace)
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-")
        self.address = f"unix:{Path(self.folder.name) / 'worker'}"
        self.server = WorkerServer(inner, self.facts, token=TOKEN, keeping=keeping or Keeping())
        self.remote = RemoteEngine(self.address, token=TOKEN, on_death=on_death)

    @property
    def info(self):
        return self.remote.info

    async def start(self):
        await self.inner.start()
        await self.server.start(self.address)
        await self.remote.start()

    async def heard(self):
        """Wait until the computing engine knows what this side has asked."""
        while self._open_here() != self._open_there():  # noqa: ASYNC110 - a test waits for a fact
            await asyncio.sleep(0)

    def _open_here(self):
        return sorted(_place(one.box) for one in self.remote._open.values())

    def _open_there(self):
        return sorted(_place(box) for box in self.inner._boxes.values())

    def generate(self, request):
        return self.remote.generate(request)

    def load(self):
        return self.remote.load()

    async def stop(self, grace_s):
        try:
            await self.remote.stop(grace_s)
            await self.server.stop(0)
            with suppress(EngineError):
                await self.inner.stop(0)
        finally:
            self.folder.cleanup()


def _place(box):
    """A request but for its id, which is another on each side."""
    return box.request.prompt, sorted(box.ended)
