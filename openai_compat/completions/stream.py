"""Text completion frames and answers: both are text_completion objects, keys in OpenAI's order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.api import TokenLogprobs
from engines.text.tokenizer import Tokenizer
from openai_compat.choice import Ending, Piece
from openai_compat.engine_extras import NO_EXTRAS, Extras
from openai_compat.errors import ErrorReply
from openai_compat.identity import Identity
from openai_compat.job import Usage
from openai_compat.logprobs import (
    LegacyLogprobs,
    by_id,
    legacy_logprobs,
    prompt_logprobs,
    with_prompt,
)
from openai_compat.prompt_telling import PromptTelling
from openai_compat.showing import Showing
from openai_compat.sse import DONE, error_event, event, json_bytes, split_event
from openai_compat.usage import usage_object

_TEXT = "\0text"
_NOTHING = Piece()


@dataclass(frozen=True, slots=True)
class CompletionTelling:
    """What is told beside the generated text."""

    n: int  # choices told per prompt
    include_usage: bool
    showing: Showing
    echoes: Sequence[str] = ()  # the text of each prompt, where it is to be told
    echo_logprobs: int | None = None  # so many likely tokens each, beside the echo
    prompt_logprobs: int | None = None  # so many in vLLM's shape; the engine gives the larger
    extras: Extras = NO_EXTRAS


class CompletionShape:
    """Implements `render.Shape`."""

    __slots__ = ("_heads", "_identity", "_name", "_prompts", "_tail", "_telling", "_tokenizer")

    def __init__(
        self,
        identity: Identity,
        tokenizer: Tokenizer,
        prompts: Sequence[PromptTelling],
        telling: CompletionTelling,
    ) -> None:
        self._identity = identity
        self._prompts = prompts
        self._telling = telling
        self._name = by_id if telling.showing.tokens_as_ids else tokenizer.token_text
        self._tokenizer = tokenizer
        self._heads: list[bytes] = []
        self._tail = b""

    def opening(self, count: int) -> bytes:
        for index in range(count):
            head, self._tail = split_event(self._chunk(index, _TEXT), _TEXT)
            self._heads.append(head)
        waits = self._telling.echo_logprobs is not None
        if waits or not (self._telling.echoes or self._tells_ids):
            return b""  # an echo with log-probabilities waits for them
        return b"".join([event(self._opened(index)) for index in range(count)])

    def text(self, index: int, text: str) -> bytes:
        return self._heads[index] + json_bytes(text) + self._tail

    def piece(self, index: int, piece: Piece) -> bytes:
        frames = b""
        if piece.prompt is not None and self._telling.echo_logprobs is not None:
            frames = event(self._opened(index, self._echoed(index, piece.prompt)))
        if piece.entries or piece.tokens:
            logprobs = legacy_logprobs(piece.entries, self._name) if piece.entries else None
            return frames + event(self._chunk(index, piece.text, piece, logprobs))
        return frames + self.text(index, piece.text) if piece.text else frames

    def closing(self, index: int, reason: Ending, extras: Mapping[str, str] | None) -> bytes:
        choice = self._choice(index, "", _NOTHING, None, reason)
        return event(self._around(choice | self._telling.extras.told(extras)))

    def ending(self, usage: Usage) -> bytes:
        if not self._telling.include_usage:
            return DONE
        return event({**self._head(), "choices": [], "usage": usage_object(usage)}) + DONE

    def failure(self, error: ErrorReply) -> bytes:
        return error_event(error)

    def answer(self, pieces: Sequence[Piece], usage: Usage) -> bytes:
        choices = [self._folded(index, piece) for index, piece in enumerate(pieces)]
        return json_bytes({**self._head(), "choices": choices, "usage": usage_object(usage)})

    @property
    def _tells_ids(self) -> bool:
        return self._telling.showing.token_ids

    def _prompt(self, index: int) -> PromptTelling:
        return self._prompts[index // self._telling.n]

    def _echo(self, index: int) -> str:
        echoes = self._telling.echoes
        return echoes[index // self._telling.n] if echoes else ""

    def _echoed(self, index: int, told: Sequence[TokenLogprobs]) -> LegacyLogprobs:
        prompt = self._prompt(index).prompt
        likely = _likeliest(told, self._telling.echo_logprobs or 0)
        return prompt_logprobs(prompt, likely, self._tokenizer.detokenizer(), self._name)

    def _opened(self, index: int, logprobs: LegacyLogprobs | None = None) -> dict[str, object]:
        """The first chunk of a choice: its prompt."""
        choice = self._choice(index, self._echo(index), _NOTHING, logprobs, None)
        return self._around(choice | self._prompt(index).ids())

    def _folded(self, index: int, piece: Piece) -> dict[str, object]:
        logprobs = legacy_logprobs(piece.entries, self._name) if piece.entries else None
        told: dict[str, object] = {}
        if piece.prompt is not None and self._telling.echo_logprobs is not None:
            nothing = legacy_logprobs((), self._name)
            logprobs = with_prompt(self._echoed(index, piece.prompt), logprobs or nothing)
        if piece.prompt is not None and self._telling.prompt_logprobs is not None:
            likely = _likeliest(piece.prompt, self._telling.prompt_logprobs)
            told = self._prompt(index).logprobs(likely)
        text = self._echo(index) + piece.text
        choice = self._choice(index, text, piece, logprobs, piece.finish)
        extras = self._telling.extras.told(piece.extras)
        return choice | self._prompt(index).ids() | told | extras

    def _head(self) -> dict[str, object]:
        return {
            "id": self._identity.id,
            "object": "text_completion",
            "created": self._identity.created,
            "model": self._identity.model,
            "system_fingerprint": self._identity.fingerprint,
        }

    def _chunk(
        self,
        index: int,
        text: str,
        piece: Piece = _NOTHING,
        logprobs: LegacyLogprobs | None = None,
    ) -> dict[str, object]:
        return self._around(self._choice(index, text, piece, logprobs, None))

    def _around(self, choice: dict[str, object]) -> dict[str, object]:
        chunk = {**self._head(), "choices": [choice]}
        if self._telling.include_usage:
            chunk["usage"] = None
        return chunk

    def _choice(
        self,
        index: int,
        text: str,
        piece: Piece,
        logprobs: LegacyLogprobs | None,
        reason: Ending | None,
    ) -> dict[str, object]:
        choice: dict[str, object] = {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": reason,
        }
        if self._tells_ids:
            choice["token_ids"] = piece.tokens
        return choice


def _likeliest(told: Sequence[TokenLogprobs], count: int) -> Sequence[TokenLogprobs]:
    """The same with at most so many likely tokens at each place."""
    if all(len(entry.top) <= count for entry in told):
        return told
    return [TokenLogprobs(entry.logprob, entry.top[:count]) for entry in told]
