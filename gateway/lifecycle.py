"""What the process is doing: starting, loading, ready, draining or failed; and what it serves."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from engines.api import Engine
from engines.replicas import ReplicaSet
from gateway.dispatch import Dispatcher
from gateway.grammar_check import Checker
from gateway.vector_dispatch import VectorDispatcher
from openai_compat.errors import Unavailable
from openai_compat.served import ServedModel

_LOADING_RETRY_S = 2.0
_DRAINING_RETRY_S = 5.0
_NO_WORKER_RETRY_S = 2.0


class Phase(StrEnum):
    """Where the process is in its life; it only moves forward."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers calls once the model is loaded."""

    engine: Engine
    models: Mapping[str, ServedModel]
    dispatcher: Dispatcher
    vectors: VectorDispatcher
    checker: Checker | None = None  # of grammars, where the engine takes any
    keeper: ReplicaSet | None = None  # whose workers keep streams
    is_outlived: bool = False  # whether those workers live on when this process ends


@dataclass(frozen=True, slots=True)
class State:
    """The phase and what it is at, as operators see them."""

    status: str
    phase: str


class Lifecycle:
    """The one owner of the phase, on the event loop. Calls enter only while it is ready."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.detail = "starting"
        self._workers: tuple[int, int] | None = None  # up, of so many; None: there are none
        self.all_up = True  # no worker is away that should be there
        self._serving: Serving | None = None
        self._changed = asyncio.Event()
        self._arrivals: set[asyncio.Timeout] = set()

    @property
    def state(self) -> State:
        """What the process is doing now."""
        if self.phase is Phase.READY and self._workers is not None:
            up, total = self._workers
            status = self.phase.value if up else "unavailable"
            return State(status, f"{up} of {total} workers up")
        return State(self.phase.value, self.detail)

    @property
    def takes_calls(self) -> bool:
        """Whether calls that come now are served."""
        return self.phase is Phase.READY and self._workers_up

    @property
    def _workers_up(self) -> bool:
        return self._workers is None or self._workers[0] > 0

    def workers(self, up: int, total: int) -> None:
        """Note that so many workers are up, of so many."""
        self._workers, self.all_up = (up, total), up >= total
        self._move(self.phase, self.detail)

    async def states(self) -> AsyncGenerator[State, None]:
        """The state now, then after each change, up to the one that ends the process."""
        told: State | None = None
        while True:
            changed, state = self._changed, self.state
            if state != told:
                told = state
                yield state
            if self.phase in {Phase.DRAINING, Phase.FAILED}:
                return
            await changed.wait()

    async def ending(self) -> None:
        """Wait until it drains, or has failed."""
        async for _ in self.states():
            pass

    def progress(self, detail: str) -> None:
        """Say what loading is at, in words of ours."""
        if self.phase is Phase.LOADING:
            self._move(Phase.LOADING, detail)

    def ready(self, serving: Serving) -> None:
        """Begin to serve, unless told to stop while loading."""
        self._serving = serving
        if self.phase is Phase.LOADING:
            self._move(Phase.READY, "ready")

    def drain(self) -> None:
        """Take no more calls."""
        if self.phase is not Phase.FAILED:
            self._move(Phase.DRAINING, "finishing running requests")
        arrivals, self._arrivals = self._arrivals, set()
        for arrival in arrivals:
            arrival.reschedule(0)

    @asynccontextmanager
    async def arrival(self) -> AsyncIterator[None]:
        """A block in which a request still arrives: draining ends it with Unavailable."""
        try:
            async with asyncio.timeout(None) as scope:
                self._arrivals.add(scope)
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise draining() from None
        finally:
            self._arrivals.discard(scope)

    def fail(self) -> None:
        """Loading ended without a model; the process is about to end."""
        self._move(Phase.FAILED, "failed to load")

    def _move(self, phase: Phase, detail: str) -> None:
        self.phase, self.detail = phase, detail
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def loaded(self) -> Serving | None:
        """What serves, in any phase; None before it is loaded."""
        return self._serving

    def serving(self) -> Serving:
        """What serves new calls. Raises Unavailable in every phase but ready, or with no worker."""
        if self.phase is Phase.READY and self._serving is not None:
            if not self._workers_up:
                message = "No worker is up; one is on its way."
                raise Unavailable(message, code="no_worker", retry_after_s=_NO_WORKER_RETRY_S)
            return self._serving
        if self.phase is Phase.DRAINING:
            raise draining()
        raise Unavailable(
            f"The model is loading ({self.detail}).", code="loading", retry_after_s=_LOADING_RETRY_S
        )


def draining() -> Unavailable:
    """What a request meets that comes, or is still coming, while the server ends."""
    message = "The server is shutting down and takes no new requests."
    return Unavailable(message, code="draining", retry_after_s=_DRAINING_RETRY_S)
