"""Where an engine is in its life: what it answers to requests, and the one death that it tells of.

not started --begin--> up --stop--> stopping
|                  |               |
'-------fail-------+------die------'--> dead, for good
"""

import logging
from collections.abc import Callable

from engines.errors import EngineDied, EngineError, EngineUnavailable

_log = logging.getLogger(__name__)

Refusal = tuple[type[EngineError], str]  # raised afresh for each stream
NOT_STARTED: Refusal = (EngineUnavailable, "the engine is not started")
STOPPING: Refusal = (EngineUnavailable, "the engine is stopping")
DEAD: Refusal = (EngineDied, "the engine failed; see the server log")


class Life:
    """Of one engine. `on_death` is called once, unless it is silenced before."""

    def __init__(self, on_death: Callable[[BaseException], None] | None) -> None:
        self._on_death = on_death
        self._refusal: Refusal | None = NOT_STARTED
        self._started = False
        self.alive = True  # False once it has failed, also at its start

    def start(self) -> None:
        """It is started, or was stopped before: either happens once. Raises RuntimeError."""
        if self._started:
            raise RuntimeError("an engine is started once; make a new one")
        self._started = True

    def begin(self) -> None:
        """It takes requests from now on."""
        self._refusal = None

    def fail(self) -> None:
        """Its start has failed."""
        self.alive = False

    def check(self) -> None:
        """Raise why it takes no requests, if it takes none."""
        if self._refusal is not None:
            raise refused(self._refusal)

    def stop(self) -> None:
        """It takes no more. Idempotent."""
        self._started = True  # what was stopped is not started again
        if self.alive:
            self._refusal = STOPPING

    def silence(self) -> None:
        """Nobody need hear of its death any more."""
        self._on_death = None

    def die(
        self, error: BaseException, fail_all: Callable[[type[EngineError], str], None]
    ) -> EngineError:
        """Note its death, and fail all that is open, once. Returns what a reader is told."""
        if self.alive:
            self.alive = False
            _log.error("the engine failed", exc_info=error)
            self._refusal = DEAD
            fail_all(*DEAD)
            if self._on_death is not None:
                self._on_death(error)
        return refused(DEAD)


def refused(refusal: Refusal) -> EngineError:
    """The error of a refusal: a new one each time, since it gathers where it was raised."""
    kind, message = refusal
    return kind(message)
