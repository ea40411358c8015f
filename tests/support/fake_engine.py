"""An engine that emits what a test tells it to, and a renderer that shows what it was fed."""

import asyncio

from engines.api import EngineInfo, EngineLoad, Finish, FinishReason, TokenEvent
from openai_compat.job import Job, Rendered, Usage


class FakeStream:
    """A token stream driven by hand."""

    def __init__(self, request):
        self.request = request
        self.closed = False
        self.ended = []
        self._queue = asyncio.Queue()
        self._open = request.n

    def emit(self, *tokens, choice=0, finish=None, cached=0):
        end = Finish(FinishReason(finish), len(tokens)) if finish else None
        self._queue.put_nowait(TokenEvent(choice, list(tokens), cached, finish=end))

    def fail(self, error):
        self._queue.put_nowait(error)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._open == 0 or self.closed:
            raise StopAsyncIteration
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        if item.finish is not None:
            self._open -= 1
        return item

    def end_choice(self, choice):
        self.ended.append(choice)
        self._open -= 1

    async def aclose(self):
        self.closed = True


class FakeEngine:
    """Hands out FakeStreams; `refusals` are raised by the next calls of generate, in order."""

    def __init__(self, *, max_running=8):
        self.streams = []
        self.refusals = []
        self.stopped = False
        self._max_running = max_running

    @property
    def info(self):
        return EngineInfo("fake", 1024, 256, 16, 64, self._max_running)

    async def start(self):
        return

    def generate(self, request):
        refusal = self.refusals.pop(0) if self.refusals else None
        if refusal is not None:
            raise refusal
        self.streams.append(FakeStream(request))
        return self.streams[-1]

    def load(self):
        running = sum(not stream.closed for stream in self.streams)
        return EngineLoad(running, 0, 0, 0, 64)

    async def stop(self, grace_s):
        self.stopped = True


class FakeRenderer:
    """Frames that spell the events; a token 0 stands for a stop string that matched."""

    def __init__(self):
        self.fed = []

    def begin(self):
        return b"begin;"

    def feed(self, request, event):
        self.fed.append((request, event.choice, tuple(event.tokens)))
        ended = (event.choice,) if 0 in event.tokens else ()
        return Rendered(b"%d.%d=%a;" % (request, event.choice, event.tokens), ended)

    def finish(self):
        return b"done;"

    def fail(self, error):
        return b"error " + error.code.encode()

    def fold(self):
        return repr(self.fed).encode()

    @property
    def usage(self):
        tokens = sum(len(tokens) for _, _, tokens in self.fed)
        return Usage(10, tokens, 4)


def fake_job(*requests, stream=True):
    """A job of these requests with a renderer of its own."""
    return Job("call-1", tuple(requests), FakeRenderer(), stream=stream)
