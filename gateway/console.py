"""What the operator sees while the server starts: phases with their times, then where to call."""

import shlex
from collections.abc import Callable
from time import monotonic
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from gateway.bootstrap import Opened
from gateway.settings import Settings

_TOOK = "{task.fields[took]}"


class StartScreen:
    """Tells phases as they begin: a bar each on a terminal, plain lines elsewhere."""

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

    def serving(self, opened: Opened, settings: Settings, url: str) -> None:
        """The last lines: what is served, where, and how to try it."""
        self._end()
        took = self._clock() - self._began
        name = opened.model.name
        self._say(f"KV cache: {opened.kv}")
        self._say(f"Serving {name} at {url} (ready in {took:.1f} s)")
        self._say(f"Try: {curl_hint(url, name, settings)}")

    def stopped(self, reason: str) -> None:
        """One sentence on why it will not serve."""
        self._end()
        self._say(f"penstock: {reason}")

    def _begin_bar(self, name: str) -> None:
        if self._bars is None:
            columns = (TextColumn("{task.description:<20}"), BarColumn(), TextColumn(_TOOK))
            self._bars = Progress(*columns, console=self._console)
            self._bars.start()
        self._bar = self._bars.add_task(name, total=None, took="...")

    def _end_phase(self) -> None:
        took = f"{self._clock() - self._phase_began:.2f} s"
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, total=1, completed=1, took=took)
        elif self._phase is not None:
            self._say(f"{self._phase}: {took}")
        self._phase = self._bar = None

    def _end(self) -> None:
        self._end_phase()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False)


def curl_hint(url: str, model: str, settings: Settings) -> str:
    """A command that streams an answer; the key stays a variable."""
    body = f'{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"Hi!"}}]}}'
    key = ' -H "Authorization: Bearer $PENSTOCK_API_KEY"' if settings.api_key else ""
    return (
        f"curl -N {url}/chat/completions{key} -H 'content-type: application/json'"
        f" -d {shlex.quote(body)}"
    )
