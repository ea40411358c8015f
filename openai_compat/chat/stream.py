"""Chat frames and answers: chat.completion.chunk and chat.completion, keys in OpenAI's order."""

from collections.abc import Sequence

import msgspec

from engines.api import FinishReason
from openai_compat.choice import Piece
from openai_compat.identity import Identity
from openai_compat.job import Usage
from openai_compat.logprobs import ChatLogprobs
from openai_compat.sse import event, json_bytes, split_event
from openai_compat.usage import usage_object

_TEXT = "\0text"


class ChatShape:
    """Implements `render.Shape`."""

    __slots__ = ("_heads", "_identity", "_include_usage", "_logprobs", "_tail")

    def __init__(self, identity: Identity, logprobs: ChatLogprobs, *, include_usage: bool) -> None:
        self._identity = identity
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._heads: list[bytes] = []
        self._tail = b""

    def opening(self, count: int) -> bytes:
        for index in range(count):
            head, self._tail = split_event(self._chunk(index, {"content": _TEXT}), _TEXT)
            self._heads.append(head)
        role = {"role": "assistant", "content": ""}
        return b"".join(event(self._chunk(index, role)) for index in range(count))

    def piece(self, index: int, piece: Piece) -> bytes:
        if not piece.entries:
            return self._heads[index] + json_bytes(piece.text) + self._tail
        logprobs = self._logprobs.write(piece.entries)
        return event(self._chunk(index, {"content": piece.text}, logprobs=logprobs))

    def closing(self, index: int, reason: FinishReason) -> bytes:
        return event(self._chunk(index, {}, reason=reason))

    def usage(self, usage: Usage) -> bytes:
        return event({**self._head(), "choices": [], "usage": usage_object(usage)})

    def answer(self, pieces: Sequence[Piece], usage: Usage) -> bytes:
        head = self._head("chat.completion")
        fingerprint = head.pop("system_fingerprint")
        return json_bytes(
            {
                **head,
                "choices": [self._choice(index, piece) for index, piece in enumerate(pieces)],
                "usage": usage_object(usage),
                "system_fingerprint": fingerprint,
            }
        )

    def _choice(self, index: int, piece: Piece) -> dict[str, object]:
        entries = piece.entries
        return {
            "index": index,
            "message": {"role": "assistant", "content": piece.text, "refusal": None},
            "logprobs": self._logprobs.write(entries) if entries else None,
            "finish_reason": piece.finish,
        }

    def _head(self, kind: str = "chat.completion.chunk") -> dict[str, object]:
        return {
            "id": self._identity.id,
            "object": kind,
            "created": self._identity.created,
            "model": self._identity.model,
            "system_fingerprint": self._identity.fingerprint,
        }

    def _chunk(
        self,
        index: int,
        delta: dict[str, str],
        *,
        logprobs: msgspec.Raw | None = None,
        reason: FinishReason | None = None,
    ) -> dict[str, object]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head(), "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return chunk
