"""The seam between dialect and process: what one HTTP call asks of an engine, and its renderer."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engines.api import GenerationRequest, TokenEvent
from openai_compat.choice import Ending
from openai_compat.conversation.ask import Constraint
from openai_compat.errors import ErrorReply


class Rendered(NamedTuple):
    """What an event became: SSE bytes (possibly none), and choices the engine may stop now.

    A named tuple because one is made per event: 0.2 us, where a frozen dataclass takes 0.5.
    """

    frames: bytes
    ended: tuple[int, ...] = ()  # choices of that request whose stop string matched
    finish: Ending | None = None  # why the event's choice ended, as the client is told


class Renderer(Protocol):
    """Folds the events of a job's requests, in any interleaving, into frames and one answer.

    Call order: `begin`, `feed` until every request's stream has ended, then `finish` (streaming) or
    `fold` (not streaming). `fail` may follow `begin` or any `feed`, and ends the rendering.
    """

    def begin(self) -> bytes: ...

    def feed(self, request: int, event: TokenEvent) -> Rendered:
        """Render one event of `requests[request]`; events after a choice's end are ignored."""

    def finish(self) -> bytes:
        """The frames after the last choice has ended: usage, when asked for, and the end."""

    def fail(self, error: ErrorReply) -> bytes:
        """The nested error as an SSE event. The connection is aborted after it, never ended."""

    def fold(self) -> bytes:
        """The whole JSON answer of a call that does not stream."""

    @property
    def usage(self) -> "Usage": ...


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts over all choices of a call, exact at every moment."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One API call after every check that needs no engine."""

    id: str
    requests: tuple[GenerationRequest, ...]
    renderer: Renderer
    stream: bool
    ignored: tuple[str, ...] = ()  # unknown body fields as the client spelled them
    constraint: Constraint | None = None  # to be compiled on trial before anything starts

    @property
    def most_tokens(self) -> int:
        """What its usage can come to."""
        return sum(
            len(request.prompt) + request.n * request.sampling.max_tokens
            for request in self.requests
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """The answer of a call that needs no engine."""

    body: bytes
    ignored: tuple[str, ...] = ()  # as in Job
