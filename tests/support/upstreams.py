"""An engine behind our own HTTP server and the upstream engine in front of it, in one process."""

import asyncio
from dataclasses import replace

from engines.upstream.config import Kind, UpstreamConfig
from engines.upstream.engine import UpstreamEngine
from gateway.bootstrap import Opened
from gateway.kv_budget import KvBudget, KvNeed
from gateway.model_directory import read_text_side
from tests.support.live import MODEL, TOKENIZER_DIR, live, test_settings


class Fronted:
    """The `Engine` that a gateway sees; `inner` is the one that computes, in a server's thread."""

    def __init__(self, inner, *, gate=None, **config):
        self.inner = inner
        self._gate = gate
        self._config = config
        self._live = None
        self.outer = UpstreamEngine(self.config("http://127.0.0.1:1/v1"))

    def config(self, url):
        size = self.inner.info.vocab_size
        plain = UpstreamConfig(url, Kind.PENSTOCK, size, frozenset({3}), max_running=8)
        return replace(plain, **self._config)

    @property
    def info(self):
        return self.outer.info

    async def start(self):
        if self._live is None:
            await asyncio.to_thread(self._serve)
        await self.outer.start()
        if self._gate is not None:
            self._gate._open.clear()

    def generate(self, request):
        return self.outer.generate(request)

    def load(self):
        """What the computing engine holds, and what is still to be read."""
        inner, outer = self.inner.load(), self.outer.load()
        return replace(
            inner,
            running=max(inner.running, outer.running),
            waiting=max(inner.waiting, outer.waiting if not inner.running else 0),
        )

    async def heard(self):
        """Wait until the computing engine holds as many streams as are open here."""
        while sum(map(len, self.outer._runs.values())) != len(self.inner._boxes):  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def stop(self, grace_s):
        await self.outer.stop(grace_s)
        if self._live is not None:
            context, self._live = self._live, None
            await asyncio.to_thread(context.__exit__, None, None, None)

    def _serve(self):
        if self._gate is not None:
            self._gate._open.set()  # the server computes a token before it is ready
        context = live(test_settings(), opener=self._open)
        self.server = context.__enter__()
        self._live = context
        self.outer = UpstreamEngine(self.config(self.server.url))

    def _open(self, settings, report, on_death):
        info, text = self.inner.info, read_text_side(TOKENIZER_DIR)
        need = KvNeed(8, info.block_size, info.max_running, info.max_context)
        model = text.served_as((MODEL,), info, frozenset())
        return Opened(self.inner, model, KvBudget(info.num_blocks, info.max_context, 8, need))
