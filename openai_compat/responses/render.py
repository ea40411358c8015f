"""The renderer of a response: engine events to its event stream, or to one object at the end.

Both come from the same output items, so they cannot differ.

```
created  [queued]  in_progress  items...  completed | incomplete
                                          failed  error
                                          error (cancelled)
```
"""

from dataclasses import replace

from engines.api import GenerationRequest, TokenEvent
from openai_compat.choice import Choice, Ending, Piece
from openai_compat.errors import ErrorReply
from openai_compat.job import Rendered, Usage
from openai_compat.logprobs import ChatLogprobs
from openai_compat.output.delta import Text
from openai_compat.responses.frames import Events, error_event
from openai_compat.responses.open_items import ItemStatus
from openai_compat.responses.output import Output
from openai_compat.responses.snapshot import Snapshots, Status
from openai_compat.sse import json_bytes

_NOTHING = Rendered(b"")
CANCELLED = ErrorReply(
    400, "invalid_request_error", "response_cancelled", "The response was cancelled."
)


class ResponseRenderer:
    """Implements `job.Renderer`, and tells the response as it is at any moment.

    A response in the background is queued until the engine has begun with it. Its events are a
    function of its tokens, one by one, so that any replica tells the same ones with the same
    numbers, however the tokens came.
    """

    def __init__(
        self,
        request: GenerationRequest,
        choice: Choice,
        snapshots: Snapshots,
        output: Output,
        events: Events,
        logprobs: ChatLogprobs | None,
    ) -> None:
        self._prompt_tokens = len(request.prompt)
        self._choice = choice
        self._snapshots = snapshots
        self._output = output
        self._events = events
        self._logprobs = logprobs
        self._pending: list[bytes] = []  # logprobs of tokens whose text is not known yet
        self._cached = 0
        self.error: ErrorReply | None = None  # of one that has failed
        self._background = bool(snapshots.echo["background"])
        self._waiting = self._background  # for the engine to begin
        self.status = Status.QUEUED if self._background else Status.IN_PROGRESS

    def begin(self) -> bytes:
        created = self._tell("response.created")
        if self._background:
            return created + self._tell("response.queued")
        return created + self._tell("response.in_progress")

    def feed(self, request: int, event: TokenEvent) -> Rendered:  # noqa: ARG002 - there is one
        choice = self._choice
        if choice.finish is not None:
            return _NOTHING
        begun = self._go_on() if self._waiting else b""
        self._cached = max(self._cached, event.cached)
        if self._logprobs is None and not self._background:
            piece = choice.feed(event)
            frames, finish = self._show(piece), piece.finish
        else:
            frames, finish = self._feed_each(event)
        ended = (0,) if finish is not None and event.finish is None else ()
        return Rendered(begun + frames, ended, finish)

    def finish(self) -> bytes:
        ending = self._choice.finish
        if ending is None:
            raise RuntimeError("the choice has not finished")
        cut = ending is Ending.LENGTH
        frames = self._output.at_least_a_message()
        frames += self._output.rest(b",".join(self._pending))
        frames += self._output.close(ItemStatus.INCOMPLETE if cut else ItemStatus.COMPLETED)
        self.status = Status.INCOMPLETE if cut else Status.COMPLETED
        return frames + self._tell(f"response.{self.status.value}")

    def fold(self) -> bytes:
        self.finish()
        return self.body()

    def fail(self, error: ErrorReply) -> bytes:
        """`response.failed` for who reads the response, then `error`, which stock SDKs raise."""
        frames = self._break_off(Status.FAILED, error)
        return frames + self._tell("response.failed") + error_event(self._events, error)

    def cancel(self) -> bytes:
        """The end of a response that somebody cancelled."""
        return self._break_off(Status.CANCELLED, None) + error_event(self._events, CANCELLED)

    def skip(self, numbers: int) -> None:
        """Leave so many numbers of events out."""
        self._events.number += numbers

    @property
    def told(self) -> int:
        """The number of the next event."""
        return self._events.number

    def body(self) -> bytes:
        """The response as it is now, as JSON."""
        return json_bytes(self._object())

    @property
    def usage(self) -> Usage:
        choice = self._choice
        return Usage(
            self._prompt_tokens, choice.completion_tokens, self._cached, choice.reasoning_tokens
        )

    def _go_on(self) -> bytes:
        """The engine has begun."""
        self._waiting = False
        self.status = Status.IN_PROGRESS
        return self._tell("response.in_progress")

    def _feed_each(self, event: TokenEvent) -> tuple[bytes, Ending | None]:
        """One token at a time: which item a logprob belongs to must not depend on the grouping."""
        frames, finish = b"", None
        for one in _one_by_one(event, end_apart=self._background):
            piece = self._choice.feed(one)
            frames, finish = frames + self._show(piece), piece.finish
            if finish is not None:
                break
        return frames, finish

    def _show(self, piece: Piece) -> bytes:
        if piece.deltas is None and self._logprobs is None:  # plain text, token after token
            return self._output.say(piece.text) if piece.text else b""
        if self._logprobs is not None and piece.entries:
            self._pending.append(self._logprobs.objects(piece.entries))
        frames = []
        for delta in piece.parts:
            logprobs = b",".join(self._pending) if self._pending else b""
            frames.append(self._output.take(delta, logprobs if isinstance(delta, Text) else b""))
            self._pending.clear()
        return b"".join(frames)

    def _break_off(self, status: Status, error: ErrorReply | None) -> bytes:
        frames = self._output.close(ItemStatus.INCOMPLETE)
        self.status, self.error = status, error
        return frames

    def _tell(self, kind: str) -> bytes:
        if self._events.silent:
            return b""
        return self._events.event(kind, {"response": self._object()})

    def _object(self) -> dict[str, object]:
        usage = None if self.status.live else self.usage
        return self._snapshots.object(
            self.status, self._output.items(), usage=usage, error=self.error
        )


def _one_by_one(event: TokenEvent, *, end_apart: bool) -> list[TokenEvent]:
    """The event as events of one token each.

    The finish goes with the last; apart, where it comes by itself now and then: a stop token, which
    is not shown, always comes with it.
    """
    finish = event.finish
    apart = end_apart and bool(event.tokens) and finish is not None and finish.stop_token is None
    if len(event.tokens) < 2 and not apart:
        return [event]
    last = -1 if apart else len(event.tokens) - 1
    ones = [
        replace(
            event,
            tokens=[token],
            logprobs=None if event.logprobs is None else [event.logprobs[place]],
            finish=finish if place == last else None,
        )
        for place, token in enumerate(event.tokens)
    ]
    if apart:
        ones.append(replace(event, tokens=[], logprobs=event.logprobs and [], finish=finish))
    return ones
