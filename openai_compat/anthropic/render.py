"""The renderer of messages: the events of the one choice to frames, or to one folded message."""

from engines.api import GenerationRequest, TokenEvent
from openai_compat.anthropic.answer import Closing, Head, content_blocks
from openai_compat.anthropic.blocks import BlockSequence
from openai_compat.anthropic.stream import MessageFrames
from openai_compat.choice import Choice, Ending, Piece, joined
from openai_compat.errors import ErrorReply
from openai_compat.job import Rendered, Usage
from openai_compat.sse import json_bytes

_NOTHING = Rendered(b"")


class MessageRenderer:
    """Implements `job.Renderer`.

    `message_start` waits for the engine's first event: only that one tells how much of the prompt
    came from the cache, and older clients read the prompt's counts there and nowhere else.
    `length_reason` is what a message that ran to its limit tells.
    """

    __slots__ = (
        "_blocks",
        "_cached",
        "_choice",
        "_frames",
        "_head",
        "_length_reason",
        "_pieces",
        "_prompt_tokens",
        "_started",
    )

    def __init__(
        self,
        head: Head,
        request: GenerationRequest,
        choice: Choice,
        blocks: BlockSequence,
        *,
        stream: bool,
        length_reason: str = "max_tokens",
    ) -> None:
        self._head = head
        self._choice = choice
        self._blocks = blocks
        self._frames = MessageFrames(head, blocks)
        self._length_reason = length_reason
        self._prompt_tokens = len(request.prompt)
        self._cached = 0
        self._pieces: list[Piece] | None = None if stream else []
        self._started = False

    def begin(self) -> bytes:
        return b""

    def feed(self, request: int, event: TokenEvent) -> Rendered:  # noqa: ARG002 - there is one
        choice = self._choice
        if choice.finish is not None:
            return _NOTHING
        if event.cached:
            self._cached = max(self._cached, event.cached)
        # Nearly every event of nearly every stream is text and nothing else.
        if self._started and (text := choice.text_of(event)) is not None:
            return Rendered(self._frames.text(text)) if text else _NOTHING
        frames = self._start() if self._pieces is None and not self._started else b""
        piece = choice.feed(event)
        if self._pieces is None:
            frames += self._frames.piece(piece)
        else:
            self._pieces.append(piece)
        ended = (event.choice,) if piece.finish is not None and event.finish is None else ()
        return Rendered(frames, ended, piece.finish)

    def finish(self) -> bytes:
        # `_closing` looks at the blocks before `end` closes them.
        return self._frames.end(self._closing(), self.usage)

    def fail(self, error: ErrorReply) -> bytes:
        return self._frames.failure(error)

    def fold(self) -> bytes:
        if self._pieces is None:
            raise RuntimeError("a streamed message keeps no pieces to fold")
        steps = self._blocks.feed(joined(self._pieces).parts)
        closing = self._closing()
        content = content_blocks([*steps, *self._blocks.finish()])
        return json_bytes(self._head.message(content, closing, self.usage))

    @property
    def usage(self) -> Usage:
        choice = self._choice
        return Usage(
            self._prompt_tokens, choice.completion_tokens, self._cached, choice.reasoning_tokens
        )

    def _start(self) -> bytes:
        self._started = True
        return self._frames.begin(self.usage)

    def _closing(self) -> Closing:
        """Complete calls are to be run, whatever came after them; else a stop sequence is told."""
        choice = self._choice
        match choice.finish:
            case None:  # a clean end would read as success
                raise RuntimeError("the message has not finished")
            case Ending.LENGTH:
                return Closing(self._length_reason, None)
            case Ending.TOOL_CALLS if not self._blocks.broken_call or choice.stop_string is None:
                return Closing("tool_use", None)
            case _ if choice.stop_string is not None:
                return Closing("stop_sequence", choice.stop_string)
            case _:
                return Closing("end_turn", None)
