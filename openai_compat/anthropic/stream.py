"""Frames of a streamed message: Anthropic's named events around the steps of its blocks."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from openai_compat.anthropic.answer import Closing, Head, usage_object
from openai_compat.anthropic.blocks import Begin, BlockSequence, End, Kind, More, Step
from openai_compat.anthropic.errors import error_object
from openai_compat.choice import Piece
from openai_compat.errors import ErrorReply
from openai_compat.job import Usage
from openai_compat.output.delta import Text
from openai_compat.sse import json_bytes

_TEXT = "\0text"
# What a delta of each kind of block is called, and under which name it holds its text.
_DELTAS: Mapping[Kind, tuple[str, str]] = MappingProxyType(
    {
        Kind.TEXT: ("text_delta", "text"),
        Kind.THINKING: ("thinking_delta", "thinking"),
        Kind.TOOL: ("input_json_delta", "partial_json"),
    }
)


def named_event(value: Mapping[str, object]) -> bytes:
    """One event under the name of its type, which is where Anthropic's clients look first."""
    return b"event: %s\ndata: %s\n\n" % (str(value["type"]).encode(), json_bytes(value))


_PING = named_event({"type": "ping"})
_STOP = named_event({"type": "message_stop"})


class MessageFrames:
    """The events of one message. Begin, then pieces, then one end or a failure."""

    __slots__ = ("_after", "_before", "_blocks", "_head")

    def __init__(self, head: Head, blocks: BlockSequence) -> None:
        self._head = head
        self._blocks = blocks
        self._before = self._after = b""  # around the text of a delta of the open block

    def begin(self, usage: Usage) -> bytes:
        """The message without content."""
        message = self._head.message([], Closing(None, None), usage)
        return named_event({"type": "message_start", "message": message})

    def text(self, text: str) -> bytes:
        """The events of more content; where a text block is open there is nothing to build."""
        if self._blocks.open is Kind.TEXT:
            return self._before + json_bytes(text) + self._after
        return self._steps(self._blocks.feed((Text(text),)))

    def piece(self, piece: Piece) -> bytes:
        """The events of a piece."""
        return self._steps(self._blocks.feed(piece.parts))

    def end(self, closing: Closing, usage: Usage) -> bytes:
        """What remains of the blocks, why the message ended, and its end."""
        steps = self._steps(self._blocks.finish())
        delta = {"stop_reason": closing.reason, "stop_sequence": closing.sequence}
        told = {"type": "message_delta", "delta": delta, "usage": usage_object(usage)}
        return steps + named_event(told) + _STOP

    def failure(self, error: ErrorReply) -> bytes:
        """The error event. The connection is cut after it."""
        return named_event({"type": "error", "error": error_object(error)})

    def _steps(self, steps: Sequence[Step]) -> bytes:
        return b"".join([self._step(step) for step in steps])

    def _step(self, step: Step) -> bytes:
        match step:
            case More(text):
                return self._before + json_bytes(text) + self._after
            case Begin(index, kind):
                self._aim(index, kind)
                block = _empty_block(step)
                frame = named_event(
                    {"type": "content_block_start", "index": index, "content_block": block}
                )
                return frame if index else frame + _PING
            case End(index, signature):
                frame = named_event({"type": "content_block_stop", "index": index})
                return frame if signature is None else _signed(index, signature) + frame

    def _aim(self, index: int, kind: Kind) -> None:
        """Make what stands around every further delta of this block, once."""
        name, field = _DELTAS[kind]
        value = _delta(index, {"type": name, field: _TEXT})
        self._before, _, self._after = named_event(value).rpartition(json_bytes(_TEXT))


def _delta(index: int, delta: Mapping[str, object]) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _signed(index: int, signature: str) -> bytes:
    return named_event(_delta(index, {"type": "signature_delta", "signature": signature}))


def _empty_block(step: Begin) -> dict[str, object]:
    match step.kind:
        case Kind.TEXT:
            return {"type": Kind.TEXT, "text": ""}
        case Kind.THINKING:
            return {"type": Kind.THINKING, "thinking": "", "signature": ""}
        case Kind.TOOL:
            return {"type": Kind.TOOL, "id": step.id, "name": step.name, "input": {}}
