"""The renderer of both routes: events in any interleaving to frames, or to one folded answer.

The same choices feed both: streaming writes each piece out, folding adds the pieces up. What the
JSON looks like is the business of a `Shape`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from engines.api import GenerationRequest, TokenEvent, TokenLogprobs
from openai_compat.choice import Ending, Piece, joined
from openai_compat.errors import ErrorReply
from openai_compat.job import Rendered, Usage
from openai_compat.options import Options

_NOTHING = Rendered(b"")


class Shape(Protocol):
    """How pieces of an answer look on one route."""

    def opening(self, count: int) -> bytes:
        """The frames before any token, for all choices in index order."""

    def text(self, index: int, text: str) -> bytes:
        """The frame of new content of one choice, and of nothing else."""

    def piece(self, index: int, piece: Piece) -> bytes:
        """The frames of what is new of one choice: text, logprobs, calls, token ids, its prompt."""

    def closing(self, index: int, reason: Ending, extras: Mapping[str, str] | None) -> bytes:
        """The frame that says why a choice ended, and what its engine answered to extras."""

    def ending(self, usage: Usage) -> bytes:
        """The frames after every choice has ended, the terminal one last."""

    def failure(self, error: ErrorReply) -> bytes:
        """The frames of a stream that fails; the connection is cut after them."""

    def answer(self, pieces: Sequence[Piece], usage: Usage) -> bytes:
        """The whole JSON body of a call that does not stream."""


class Teller(Protocol):
    """One choice, as the renderer sees it; `choice.Choice` says what the members mean."""

    @property
    def finish(self) -> Ending | None: ...

    @property
    def completion_tokens(self) -> int: ...

    @property
    def reasoning_tokens(self) -> int: ...

    def text_of(self, event: TokenEvent) -> str | None: ...

    def feed(self, event: TokenEvent) -> Piece: ...


Pick = Callable[[list[Piece]], list[Piece]]


class EventRenderer:
    """Implements `job.Renderer`. Choice index = request * choices per request + its number there.

    `pick` chooses among the finished choices of a call that does not stream.
    """

    __slots__ = (
        "_cached",
        "_choices",
        "_extras",
        "_n",
        "_pick",
        "_pieces",
        "_prompt_tokens",
        "_prompts",
        "_shape",
        "_streams_text",
    )

    def __init__(
        self,
        shape: Shape,
        requests: Sequence[GenerationRequest],
        choices: Sequence[Teller],
        options: Options,
        *,
        pick: Pick | None = None,
    ) -> None:
        self._shape = shape
        self._choices = choices
        self._n = requests[0].n
        self._pick = pick
        self._prompt_tokens = sum(len(request.prompt) for request in requests)
        self._cached = [0] * len(requests)
        self._prompts = _Prompts() if _wants_prompts(requests) else None
        self._pieces: list[list[Piece]] | None = None if options.stream else [[] for _ in choices]
        self._extras: dict[int, Mapping[str, str]] = {}  # heard so far, by choice
        plain = self._prompts is None and not any(request.extras for request in requests)
        self._streams_text = options.stream and plain

    def begin(self) -> bytes:
        return self._shape.opening(len(self._choices)) if self._pieces is None else b""

    def feed(self, request: int, event: TokenEvent) -> Rendered:
        index = request * self._n + event.choice
        choice = self._choices[index]
        if choice.finish is not None:
            return _NOTHING
        if event.cached:
            self._cached[request] = max(self._cached[request], event.cached)
        # Nearly every event of nearly every stream is text and nothing else.
        if self._streams_text and (text := choice.text_of(event)) is not None:
            return Rendered(self._shape.text(index, text)) if text else _NOTHING
        piece = choice.feed(event)
        if self._prompts is not None:
            piece.prompt = self._prompts.of(request, index, event)
        if event.extras is not None:
            self._extras[index] = {**self._extras.get(index, {}), **event.extras}
        if piece.finish is not None:
            piece.extras = self._extras.get(index)
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
        answers = [joined(pieces) for pieces in self._pieces]
        return self._shape.answer(self._pick(answers) if self._pick else answers, self.usage)

    @property
    def usage(self) -> Usage:
        completion = sum(choice.completion_tokens for choice in self._choices)
        reasoning = sum(choice.reasoning_tokens for choice in self._choices)
        return Usage(self._prompt_tokens, completion, sum(self._cached), reasoning)

    def _frames(self, index: int, piece: Piece) -> bytes:
        shown = piece.text or piece.entries or piece.deltas or piece.tokens
        frames = self._shape.piece(index, piece) if shown or piece.prompt is not None else b""
        if piece.finish is not None:
            frames += self._shape.closing(index, piece.finish, piece.extras)
        return frames

    def _check_ended(self) -> None:
        """A clean end without every finish would read as success to every client."""
        running = sum(choice.finish is None for choice in self._choices)
        if running:
            raise RuntimeError(f"{running} choices have not finished")


class _Prompts:
    """The log-probabilities of each request's prompt, for the first piece of each of its choices.

    The choices of a request part from one computed prompt, so whichever speaks first brings them.
    """

    __slots__ = ("_by_request", "_told")

    def __init__(self) -> None:
        self._by_request: dict[int, Sequence[TokenLogprobs]] = {}
        self._told: set[int] = set()

    def of(self, request: int, index: int, event: TokenEvent) -> Sequence[TokenLogprobs] | None:
        """What to tell with this event of the choice `index`."""
        if event.prompt_logprobs is not None:
            self._by_request[request] = event.prompt_logprobs
        if index in self._told:
            return None
        self._told.add(index)
        return self._by_request.get(request, ())


def _wants_prompts(requests: Sequence[GenerationRequest]) -> bool:
    return requests[0].sampling.prompt_logprobs is not None
