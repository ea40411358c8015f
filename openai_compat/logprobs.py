"""Logprobs as the two routes show them: chat's list of objects, completions' parallel lists."""

from collections.abc import Sequence

import msgspec

from engines.text.tokenizer import Tokenizer
from openai_compat.choice import TokenEntry
from openai_compat.sse import json_bytes

_FLOOR = -9999.0  # OpenAI's stand-in for minus infinity, which JSON does not have


class ChatLogprobs:
    """Writes the `logprobs` object of a chat choice for one model.

    An answer may hold a hundred thousand token objects, so all of one but its number is made once
    per token and kept: 10 us for a token with its 20 most likely, which was 37 by way of dicts.
    """

    __slots__ = ("_spelled", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # token -> its JSON object before and after the number, without the brace at the end
        self._spelled: dict[int, tuple[bytes, bytes]] = {}

    def write(self, entries: Sequence[TokenEntry]) -> msgspec.Raw:
        """The object as JSON."""
        content = b",".join([self._entry(entry) for entry in entries])
        return msgspec.Raw(b'{"content":[' + content + b'],"refusal":null}')

    def _entry(self, entry: TokenEntry) -> bytes:
        sampled = (entry.token, entry.logprobs.logprob)
        first, *rest = self._tokens((sampled, *entry.logprobs.top))
        top = b"},".join(rest) + b"}" if rest else b""
        return first + b',"top_logprobs":[' + top + b"]}"

    def _tokens(self, pairs: Sequence[tuple[int, float]]) -> list[bytes]:
        known = self._spelled
        spelled = [known.get(token) or self._spell(token) for token, _ in pairs]
        logprobs = [logprob for _, logprob in pairs]
        if min(logprobs) < _FLOOR:  # rare, and asking each one is a quarter of the time here
            logprobs = [_finite(logprob) for logprob in logprobs]
        numbers = json_bytes(logprobs)[1:-1].split(b",")
        return [head + number + tail for (head, tail), number in zip(spelled, numbers, strict=True)]

    def _spell(self, token: int) -> tuple[bytes, bytes]:
        text = json_bytes(self._tokenizer.token_text(token))
        raw = json_bytes(list(self._tokenizer.token_bytes(token)))
        spelled = b'{"token":' + text + b',"logprob":', b',"bytes":' + raw
        self._spelled[token] = spelled
        return spelled


def legacy_logprobs(entries: Sequence[TokenEntry], tokenizer: Tokenizer) -> dict[str, object]:
    """The `logprobs` object of a text choice; offsets count characters of the generated text.

    `top_logprobs` has the sampled token too when it is not among the most likely ones. Tokens that
    spell the same text share one key; the likelier one keeps it.
    """
    return {
        "tokens": [tokenizer.token_text(entry.token) for entry in entries],
        "token_logprobs": [_finite(entry.logprobs.logprob) for entry in entries],
        "top_logprobs": [_legacy_top(entry, tokenizer) for entry in entries],
        "text_offset": [entry.offset for entry in entries],
    }


def _legacy_top(entry: TokenEntry, tokenizer: Tokenizer) -> dict[str, float]:
    top: dict[str, float] = {}
    for token, logprob in (*entry.logprobs.top, (entry.token, entry.logprobs.logprob)):
        top.setdefault(tokenizer.token_text(token), _finite(logprob))
    return top


def _finite(logprob: float) -> float:
    return max(_FLOOR, logprob)
