"""A live server whose model says what the test wrote: for what clients make of an answer."""

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from engines.api import Capability, EngineInfo
from engines.errors import EngineDied
from gateway.kv_budget import KvBudget, KvNeed
from gateway.model_directory import read_text_side
from gateway.opened import Opened
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.registry import reasoning_syntaxes, tool_syntaxes
from tests.support.fake_engine import FakeEngine
from tests.support.live import MODEL, TOKENIZER_DIR, live, test_settings

_CONTEXT, _BLOCK = 2048, 8
SYNTAX = ModelSyntax(reasoning_syntaxes()["think"], tool_syntaxes()["hermes"])


@dataclass
class Line:
    """One answer: its text, and how it ends: stop, length, or `dies` in the middle."""

    text: str
    end: str = "stop"


@dataclass
class Script:
    """What the model will say, answer by answer, the last one again and again; and what for."""

    tokenizer: object = None
    lines: deque = field(default_factory=deque)
    requests: list = field(default_factory=list)

    def says(self, *texts, end="stop"):
        """Replace what is left."""
        self.lines = deque(Line(text, end) for text in texts)

    def prompt(self, place=-1):
        """The prompt of a request, special tokens too."""
        tokens = list(self.requests[place].prompt)
        return self.tokenizer._backend.decode(tokens, skip_special_tokens=False)


class ScriptedEngine(FakeEngine):
    """Says the lines of a script, a token per event."""

    def __init__(self, script, info):
        super().__init__()
        self._script = script
        self._info = info

    @property
    def info(self):
        return self._info

    def generate(self, request):
        stream = super().generate(request)
        script = self._script
        script.requests.append(request)
        line = script.lines.popleft() if len(script.lines) > 1 else script.lines[0]
        tokens = script.tokenizer.encode(line.text, special=False)
        for token in tokens:
            stream.emit(token, cached=_BLOCK)
        if line.end == "dies":
            stream.fail(EngineDied("the engine died"))
        else:
            stream.emit(finish=line.end, cached=_BLOCK)
        return stream


def scripted_opener(script, settings, report, _on_death):
    """Open a scripted model that thinks and calls in tags."""
    report("script")
    text = read_text_side(TOKENIZER_DIR)
    info = EngineInfo(
        MODEL, _CONTEXT, text.tokenizer.vocab_size, _BLOCK, 512, settings.max_running,
        frozenset(Capability),
    )  # fmt: skip
    script.tokenizer = text.tokenizer
    model = replace(text.served_as(settings.served_model_name, info, frozenset()), syntax=SYNTAX)
    need = KvNeed(8, _BLOCK, settings.max_running, _CONTEXT)
    return Opened(ScriptedEngine(script, info), model, KvBudget(512, _CONTEXT, 8, need))


@contextmanager
def scripted(settings=None):
    """A server and its script."""
    script = Script()
    script.says("Hello!")
    with live(settings or test_settings(), opener=partial(scripted_opener, script)) as server:
        yield server, script
