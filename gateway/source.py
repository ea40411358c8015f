"""Where the engine of a gateway comes from: this process, or workers. Here: this process."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.daemon_thread import in_daemon_thread
from gateway.opened import OnDeath, Opened, Report
from gateway.readiness import warm_up
from gateway.settings import Settings

Opener = Callable[[Settings, Report, OnDeath], Opened]


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told, on the event loop, what an engine is at."""

    phase: Report  # a phase of loading begins
    died: OnDeath  # the engine is gone for good
    workers: Callable[[int, int], None]  # so many are up, of so many
    refused: OnDeath  # what began to serve cannot be as it was asked for


class Source(Protocol):
    """Opens the engine of a gateway, once."""

    async def open(self, watch: Watch) -> Opened:
        """A started engine that has computed a token. Raises why there will be none."""

    async def close(self) -> None:
        """End what `open` began, finished or not; the engine is stopped before. Idempotent."""


class InProcess:
    """An engine in this process, loaded by a function that blocks."""

    def __init__(self, settings: Settings, opener: Opener) -> None:
        self._settings = settings
        self._opener = opener

    async def open(self, watch: Watch) -> Opened:
        loop = asyncio.get_running_loop()

        def report(phase: str) -> None:  # from the loading thread
            loop.call_soon_threadsafe(watch.phase, phase)

        opened = await in_daemon_thread(lambda: self._opener(self._settings, report, watch.died))
        watch.phase("first token")
        await opened.engine.start()
        await warm_up(opened.engine)
        return opened

    async def close(self) -> None:
        """The engine is all there is."""
