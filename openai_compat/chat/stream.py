"""Chat frames and answers: chat.completion.chunk and chat.completion, keys in OpenAI's order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openai_compat.chat.labels import NO_LABELS, Labels
from openai_compat.choice import Ending, Piece
from openai_compat.engine_extras import NO_EXTRAS, Extras
from openai_compat.errors import ErrorReply
from openai_compat.identity import Identity
from openai_compat.job import Usage
from openai_compat.logprobs import ChatLogprobs
from openai_compat.output.delta import CallArguments, CallBegin, CallEnd, Delta, Reasoning, Text
from openai_compat.output.fold import Call, fold
from openai_compat.prompt_telling import PromptTelling
from openai_compat.sse import DONE, error_event, event, json_bytes, split_event
from openai_compat.usage import usage_object

_TEXT = "\0text"
_NOTHING = Piece()
REASONING_FIELDS = ("reasoning_content", "reasoning")  # DeepSeek's name, and OpenRouter's


@dataclass(frozen=True, slots=True)
class ChatTelling:
    """What is told beside the text."""

    include_usage: bool = False
    reasoning: tuple[str, ...] = REASONING_FIELDS[:1]  # the fields that tell it; none: it is cut
    labels: Labels = NO_LABELS
    token_ids: bool = False
    extras: Extras = NO_EXTRAS


class ChatShape:
    """Implements `render.Shape`."""

    __slots__ = ("_heads", "_identity", "_logprobs", "_prompt", "_tail", "_telling")

    def __init__(
        self, identity: Identity, logprobs: ChatLogprobs, prompt: PromptTelling,
        telling: ChatTelling,
    ) -> None:  # fmt: skip
        self._identity = identity
        self._logprobs = logprobs
        self._prompt = prompt
        self._telling = telling
        self._heads: list[bytes] = []
        self._tail = b""

    def opening(self, count: int) -> bytes:
        for index in range(count):
            head, self._tail = split_event(self._chunk(index, {"content": _TEXT}), _TEXT)
            self._heads.append(head)
        role: dict[str, object] = {"role": "assistant", "content": ""}
        first, *rest = (self._chunk(index, role) for index in range(count))
        return b"".join([event(first | self._prompt.ids()), *map(event, rest)])

    def text(self, index: int, text: str) -> bytes:
        return self._heads[index] + json_bytes(text) + self._tail

    def piece(self, index: int, piece: Piece) -> bytes:
        if piece.deltas is None and not piece.entries and not piece.tokens:
            return self.text(index, piece.text)
        wire = [told for delta in piece.parts if (told := self._told(delta)) is not None]
        if not piece.entries and not piece.tokens:
            return b"".join([event(self._chunk(index, delta)) for delta in wire])
        # The log-probabilities and the ids of a piece go with its first frame.
        first, *rest = wire or [{"content": ""}]
        frames = [event(self._chunk(index, first, piece))]
        return b"".join(frames + [event(self._chunk(index, delta)) for delta in rest])

    def closing(self, index: int, reason: Ending, extras: Mapping[str, str] | None) -> bytes:
        return event(self._chunk(index, {}, reason=reason, extras=extras))

    def ending(self, usage: Usage) -> bytes:
        if not self._telling.include_usage:
            return DONE
        return event({**self._head(), "choices": [], "usage": self.usage(usage)}) + DONE

    def usage(self, usage: Usage) -> dict[str, object]:
        """The usage object of this answer."""
        return usage_object(usage, predicted=self._telling.labels.predicted)

    def failure(self, error: ErrorReply) -> bytes:
        return error_event(error)

    def answer(self, pieces: Sequence[Piece], usage: Usage) -> bytes:
        head = self._head("chat.completion")
        fingerprint = head.pop("system_fingerprint")
        return json_bytes(
            {
                **head,
                "choices": [self._choice(index, piece) for index, piece in enumerate(pieces)],
                "usage": self.usage(usage),
                "system_fingerprint": fingerprint,
                **self._prompt.ids(),
                **self._prompt.logprobs(pieces[0].prompt),
            }
        )

    def _told(self, delta: Delta) -> dict[str, object] | None:
        """A delta as the wire's `delta` object; None for what the wire does not tell.

        Of a call, id, type and name come once; helpers that add deltas up would double them.
        """
        match delta:
            case Text(text):
                return {"content": text}
            case Reasoning(text):
                return dict.fromkeys(self._telling.reasoning, text) or None
            case CallBegin(index, name, id_):
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": id_, "type": "function", "function": function}
                return {"tool_calls": [call]}
            case CallArguments(index, text):
                return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
            case CallEnd():
                return None

    def _choice(self, index: int, piece: Piece) -> dict[str, object]:
        return {
            "index": index,
            "message": self._message(piece),
            **self._beside(piece, piece.finish),
            **self._telling.extras.told(piece.extras),
        }

    def _beside(self, piece: Piece, reason: Ending | None) -> dict[str, object]:
        """What a choice tells beside its text, with or without a piece of it."""
        entries = piece.entries
        beside: dict[str, object] = {
            "logprobs": self._logprobs.write(entries) if entries else None,
            "finish_reason": reason,
        }
        if self._telling.token_ids:
            beside["token_ids"] = piece.tokens
        return beside

    def _message(self, piece: Piece) -> dict[str, object]:
        if piece.deltas is None:
            return {"role": "assistant", "content": piece.text, "refusal": None}
        said = fold(piece.deltas)
        message: dict[str, object] = {
            "role": "assistant",
            "content": said.content if said.content or not said.calls else None,
            "refusal": None,
        }
        if said.reasoning:
            message |= dict.fromkeys(self._telling.reasoning, said.reasoning)
        if said.calls:
            message["tool_calls"] = [_call_object(call) for call in said.calls]
        return message

    def _head(self, kind: str = "chat.completion.chunk") -> dict[str, object]:
        tier = self._telling.labels.tier
        return {
            "id": self._identity.id,
            "object": kind,
            "created": self._identity.created,
            "model": self._identity.model,
            **({"service_tier": tier} if tier else {}),
            "system_fingerprint": self._identity.fingerprint,
        }

    def _chunk(
        self,
        index: int,
        delta: dict[str, object],
        piece: Piece = _NOTHING,
        *,
        reason: Ending | None = None,
        extras: Mapping[str, str] | None = None,
    ) -> dict[str, object]:
        choice = {"index": index, "delta": delta, **self._beside(piece, reason)}
        choice |= self._telling.extras.told(extras)
        chunk = {**self._head(), "choices": [choice]}
        if self._telling.include_usage:
            chunk["usage"] = None
        return chunk


def _call_object(call: Call) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
