"""A ledger with LoRA adapters and an extra, as far as the port goes: for what lies above it."""

import json
from dataclasses import replace

from engines.admittance import check_request
from gateway.model_directory import read_text_side
from gateway.opened import Computes, open_over
from tests.support.live import TOKENIZER_DIR, ledger_opener

ADAPTERS = ("clerk", "poet")
ECHO = "special.echo"


class SpecialEngine:
    """An adapter sees the prompt backwards; `special.echo` is answered with what it was given."""

    def __init__(self, inner, limits):
        self._inner = inner
        self._limits = limits
        self.info = replace(inner.info, adapters=ADAPTERS, extras=frozenset({ECHO}))
        self.heard = []

    async def start(self):
        await self._inner.start()

    def generate(self, request):
        check_request(request, self.info, self._limits)
        self.heard.append(request)
        prompt = request.prompt[::-1] if request.adapter else request.prompt
        salt = request.cache_salt + request.adapter.encode()
        plain = replace(request, prompt=prompt, cache_salt=salt, adapter="", extras={})
        return _Stream(self._inner.generate(plain), request)

    def load(self):
        return self._inner.load()

    async def stop(self, grace_s):
        await self._inner.stop(grace_s)


class _Stream:
    def __init__(self, inner, request):
        self._inner = inner
        self._request = request

    def __aiter__(self):
        return self

    async def __anext__(self):
        event = await anext(self._inner)
        if event.finish is not None and self._request.extras:
            given = json.loads(self._request.extras[ECHO])
            told = {"given": given, "adapter": self._request.adapter}
            event.extras = {ECHO: json.dumps(told)}
        return event

    def end_choice(self, choice):
        self._inner.end_choice(choice)

    async def aclose(self):
        await self._inner.aclose()


def special_opener(engines):
    """Opens one over the ledger of `live`; it is left in `engines`."""

    def open_special(settings, report, on_death):
        opened = ledger_opener([], settings, report, on_death)
        engines.append(engine := SpecialEngine(opened.engine, opened.engine._limits))
        return open_over(settings, read_text_side(TOKENIZER_DIR), Computes(engine, opened.kv))

    return open_special
