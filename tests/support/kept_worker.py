"""A worker by hand that keeps requests: it says so many tokens of each, and waits to be let on."""

import asyncio

from engines.api import Kept
from engines.errors import EngineUnavailable
from tests.support.replicas import Fate, HandEngine, HandStream


class HeldStream(HandStream):
    """Tells what `voice` says, from each token on only when its engine lets it."""

    def __init__(self, engine, request):
        super().__init__(engine, request, Fate())
        self._at = sum(len(log or ()) for log in request.logs)

    async def __anext__(self):
        while self._at >= self._engine.says and not self.closed:
            await asyncio.sleep(0.001)
            if self._engine.stopped:
                raise EngineUnavailable("the engine is stopping")
        event = await super().__anext__()
        self._at += len(event.tokens)
        return event


class KeptWorker(HandEngine):
    """Whoever asks for a request that it began is attached to it, while it `keeps` any."""

    def __init__(self):
        super().__init__([])
        self.says = 0  # tokens of each request
        self.keeps = True
        self.stopped = False
        self.kept = {}
        self.generated = []  # what was computed from its start, or behind a log
        self.detached = []

    def generate(self, request):
        self.generated.append(request)
        if request.kept is not None:
            self.kept[request.id] = request.kept
        self.streams.append(HeldStream(self, request))
        return self.streams[-1]

    async def find(self, name):
        return self.kept.get(name) if self.keeps else None

    def attach(self, request, *, watch=False):
        del watch
        self.kept[request.id] = Kept(b"", request.kept.attempt)
        self.streams.append(HeldStream(self, request))
        return self.streams[-1]

    def detach(self, stream):
        self.detached.append(stream)
