"""What the process is doing: starting, loading, ready, draining or failed; and what it serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from engines.api import Engine
from gateway.dispatch import Dispatcher
from openai_compat.errors import Unavailable
from openai_compat.served import ServedModel

_LOADING_RETRY_S = 2.0
_DRAINING_RETRY_S = 5.0


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


class Lifecycle:
    """The one owner of the phase. Calls enter only while it is ready."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.detail = "starting"
        self._serving: Serving | None = None

    def progress(self, detail: str) -> None:
        """Say what loading is at, in words of ours."""
        if self.phase is Phase.LOADING:
            self.detail = detail

    def ready(self, serving: Serving) -> None:
        """Begin to serve, unless told to stop while loading."""
        self._serving = serving
        if self.phase is Phase.LOADING:
            self.phase, self.detail = Phase.READY, "ready"

    def drain(self) -> None:
        """Take no more calls."""
        if self.phase is not Phase.FAILED:
            self.phase, self.detail = Phase.DRAINING, "finishing running requests"

    def fail(self) -> None:
        """Loading ended without a model; the process is about to end."""
        self.phase, self.detail = Phase.FAILED, "failed to load"

    @property
    def loaded(self) -> Serving | None:
        """What serves, in any phase; None before it is loaded."""
        return self._serving

    def serving(self) -> Serving:
        """What serves new calls. Raises Unavailable in every phase but ready."""
        if self.phase is Phase.READY and self._serving is not None:
            return self._serving
        if self.phase is Phase.DRAINING:
            raise Unavailable(
                "The server is shutting down and takes no new requests.",
                code="draining",
                retry_after_s=_DRAINING_RETRY_S,
            )
        raise Unavailable(
            f"The model is loading ({self.detail}).", code="loading", retry_after_s=_LOADING_RETRY_S
        )
