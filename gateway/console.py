"""What the operator sees while the server starts: phases with their times, then where to call."""

import shlex
from collections.abc import Callable
from time import monotonic
from types import MappingProxyType
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from engines.api import EngineInfo
from gateway.opened import Opened
from gateway.settings import Settings

# The part of a start that is behind when a phase begins, for a screen. A guide, not a measure:
# torch takes 3 s to import, weights from 0.2 s (the bundled model) to minutes.
DONE_BEFORE = MappingProxyType(
    {
        "starting a worker": 0.0,
        "reading tokenizer": 0.1,
        "importing openvino": 0.15,
        "importing torch": 0.2,
        "checking model": 0.45,
        "loading weights": 0.5,
        "lowering the model, once": 0.55,
        "compiling": 0.7,
        "allocating KV blocks": 0.9,
        "first token": 0.95,
    }
)


class StartScreen:
    """A line for each phase that ended; on a terminal, below them, how far the start has come."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = monotonic) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._clock = clock
        self._began = self._phase_began = clock()
        self._phase: str | None = None
        self._bars: Progress | None = None
        self._bar: TaskID | None = None

    def phase(self, name: str) -> None:
        """End the running phase and begin the next."""
        self._end_phase()
        self._phase, self._phase_began = name, self._clock()
        if self._console.is_terminal:
            self._begin_bar(name)

    @property
    def done(self) -> float:
        """How far the bar has come, from 0 to 1; 0 without one."""
        return self._bars.tasks[0].completed if self._bars is not None else 0.0

    def serving(self, opened: Opened, settings: Settings, url: str) -> None:
        """The last lines: what is served, where, and how to try it."""
        self._end()
        took = self._clock() - self._began
        name = opened.model.name
        if opened.kv.block_bytes:  # encoders have none
            self._say(f"KV cache: {opened.kv}")
        self._say(f"Serving {name} at {url} (ready in {took:.1f} s)")
        self._say(f"Try: {curl_hint(url, name, settings, opened.model.info)}")

    def stopped(self, reason: str) -> None:
        """One sentence on why it will not serve."""
        self._end()
        self._say(f"penstock: {reason}")

    def close(self) -> None:
        """Give the terminal back as it was. Idempotent."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _begin_bar(self, name: str) -> None:
        if self._bars is None or self._bar is None:
            columns = (BarColumn(), TextColumn("{task.description}", markup=False))
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._bars.start()
            self._bar = self._bars.add_task(name, total=1)
        self._bars.update(self._bar, description=name, completed=DONE_BEFORE.get(name))
        self._bars.refresh()  # its own thread cannot while an import holds the interpreter

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._say(f"{self._phase}: {self._clock() - self._phase_began:.2f} s")
        self._phase = None

    def _end(self) -> None:
        self._end_phase()
        self.close()

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False)


def curl_hint(url: str, model: str, settings: Settings, info: EngineInfo) -> str:
    """A command that the model answers, by a stream where it can; the key stays a variable."""
    route, rest = "chat/completions", '"stream":true,"messages":[{"role":"user","content":"Hi!"}]'
    if info.ranks:
        route, rest = "rerank", '"query":"Hi!","documents":["Hello!","No."]'
    elif not info.generates:
        route, rest = "embeddings", '"input":"Hi!"'
    key = (
        ' -H "Authorization: Bearer $PENSTOCK_API_KEY"'
        if settings.api_key or settings.api_key_file
        else ""
    )
    body = f'{{"model":"{model}",{rest}}}'
    return f"curl -N {url}/{route}{key} -H 'content-type: application/json' -d {shlex.quote(body)}"
