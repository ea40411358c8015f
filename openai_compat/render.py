"""The renderer of both routes: events in any interleaving to frames, or to one folded answer.

The same choices feed both: streaming writes each piece out, folding adds the pieces up. What the
JSON looks like is the business of a `Shape`.
"""

from collections.abc import Sequence
from typing import Protocol

from engines.api import GenerationRequest, TokenEvent
from openai_compat.choice import Choice, Ending, Piece, joined
from openai_compat.errors import ErrorReply
from openai_compat.job import Rendered, Usage
from openai_compat.options import Options

_NOTHING = Rendered(b"")


class Shape(Protocol):
    """How pieces of an answer look on one route."""

    def opening(self, count: int) -> bytes:
        """The frames before any token, for all choices in index order."""

    def piece(self, index: int, piece: Piece) -> bytes:
        """The frame of new text or logprobs of one choice."""

    def closing(self, index: int, reason: Ending) -> bytes:
        """The frame that says why a choice ended."""

    def ending(self, usage: Usage) -> bytes:
        """The frames after every choice has ended, the terminal one last."""

    def failure(self, error: ErrorReply) -> bytes:
        """The frames of a stream that fails; the connection is cut after them."""

    def answer(self, pieces: Sequence[Piece], usage: Usage) -> bytes:
        """The whole JSON body of a call that does not stream."""


class EventRenderer:
    """Implements `job.Renderer`. Choice index = request * n + the engine's choice number."""

    __slots__ = (
        "_cached",
        "_choices",
        "_n",
        "_pieces",
        "_prompt_tokens",
        "_shape",
    )

    def __init__(
        self,
        shape: Shape,
        requests: Sequence[GenerationRequest],
        choices: Sequence[Choice],
        options: Options,
    ) -> None:
        self._shape = shape
        self._choices = choices
        self._n = options.n
        self._prompt_tokens = sum(len(request.prompt) for request in requests)
        self._cached = [0] * len(requests)
        self._pieces: list[list[Piece]] | None = None if options.stream else [[] for _ in choices]

    def begin(self) -> bytes:
        return self._shape.opening(len(self._choices)) if self._pieces is None else b""

    def feed(self, request: int, event: TokenEvent) -> Rendered:
        index = request * self._n + event.choice
        choice = self._choices[index]
        if choice.finish is not None:
            return _NOTHING
        self._cached[request] = max(self._cached[request], event.cached)
        piece = choice.feed(event)
        if self._pieces is None:
            frames = self._frames(index, piece)
        else:
            self._pieces[index].append(piece)
            frames = b""
        if piece.finish is not None and event.finish is None:
            return Rendered(frames, (event.choice,), piece.finish)
        return Rendered(frames, (), piece.finish)

    def finish(self) -> bytes:
        self._check_ended()
        return self._shape.ending(self.usage)

    def fail(self, error: ErrorReply) -> bytes:
        return self._shape.failure(error)

    def fold(self) -> bytes:
        self._check_ended()
        if self._pieces is None:
            raise RuntimeError("a streamed answer keeps no pieces to fold")
        return self._shape.answer([joined(pieces) for pieces in self._pieces], self.usage)

    @property
    def usage(self) -> Usage:
        completion = sum(choice.completion_tokens for choice in self._choices)
        reasoning = sum(choice.reasoning_tokens for choice in self._choices)
        return Usage(self._prompt_tokens, completion, sum(self._cached), reasoning)

    def _frames(self, index: int, piece: Piece) -> bytes:
        shown = piece.text or piece.entries or piece.deltas
        frames = self._shape.piece(index, piece) if shown else b""
        if piece.finish is not None:
            frames += self._shape.closing(index, piece.finish)
        return frames

    def _check_ended(self) -> None:
        """A clean end without every finish would read as success to every client."""
        running = sum(choice.finish is None for choice in self._choices)
        if running:
            raise RuntimeError(f"{running} choices have not finished")
