"""Text completion frames and answers: both are text_completion objects, keys in OpenAI's order."""

from collections.abc import Sequence

from engines.text.tokenizer import Tokenizer
from openai_compat.choice import Ending, Piece
from openai_compat.errors import ErrorReply
from openai_compat.identity import Identity
from openai_compat.job import Usage
from openai_compat.logprobs import legacy_logprobs
from openai_compat.sse import DONE, error_event, event, json_bytes, split_event
from openai_compat.usage import usage_object

_TEXT = "\0text"


class CompletionShape:
    """Implements `render.Shape`. `echoes` holds one prompt text per request, or nothing."""

    __slots__ = ("_echoes", "_heads", "_identity", "_include_usage", "_n", "_tail", "_tokenizer")

    def __init__(
        self,
        identity: Identity,
        tokenizer: Tokenizer,
        n: int,
        echoes: Sequence[str],
        *,
        include_usage: bool,
    ) -> None:
        self._identity = identity
        self._tokenizer = tokenizer
        self._n = n
        self._echoes = echoes
        self._include_usage = include_usage
        self._heads: list[bytes] = []
        self._tail = b""

    def opening(self, count: int) -> bytes:
        for index in range(count):
            head, self._tail = split_event(self._chunk(index, _TEXT), _TEXT)
            self._heads.append(head)
        if not self._echoes:
            return b""
        return b"".join(event(self._chunk(index, self._echo(index))) for index in range(count))

    def text(self, index: int, text: str) -> bytes:
        return self._heads[index] + json_bytes(text) + self._tail

    def piece(self, index: int, piece: Piece) -> bytes:
        if not piece.entries:
            return self.text(index, piece.text)
        logprobs = legacy_logprobs(piece.entries, self._tokenizer)
        return event(self._chunk(index, piece.text, logprobs=logprobs))

    def closing(self, index: int, reason: Ending) -> bytes:
        return event(self._chunk(index, "", reason=reason))

    def ending(self, usage: Usage) -> bytes:
        if not self._include_usage:
            return DONE
        return event({**self._head(), "choices": [], "usage": usage_object(usage)}) + DONE

    def failure(self, error: ErrorReply) -> bytes:
        return error_event(error)

    def answer(self, pieces: Sequence[Piece], usage: Usage) -> bytes:
        choices = [self._folded(index, piece) for index, piece in enumerate(pieces)]
        return json_bytes({**self._head(), "choices": choices, "usage": usage_object(usage)})

    def _echo(self, index: int) -> str:
        return self._echoes[index // self._n] if self._echoes else ""

    def _head(self) -> dict[str, object]:
        return {
            "id": self._identity.id,
            "object": "text_completion",
            "created": self._identity.created,
            "model": self._identity.model,
            "system_fingerprint": self._identity.fingerprint,
        }

    def _folded(self, index: int, piece: Piece) -> dict[str, object]:
        logprobs = legacy_logprobs(piece.entries, self._tokenizer) if piece.entries else None
        text = self._echo(index) + piece.text
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": piece.finish}

    def _chunk(
        self,
        index: int,
        text: str,
        *,
        logprobs: dict[str, object] | None = None,
        reason: Ending | None = None,
    ) -> dict[str, object]:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head(), "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return chunk
