"""Logprobs as the two routes show them: chat's list of objects, completions' parallel lists."""

from collections.abc import Callable, Sequence
from typing import TypedDict

import msgspec

from engines.api import TokenLogprobs
from engines.text.detokenizer import Detokenizer
from engines.text.tokenizer import Tokenizer
from openai_compat.choice import TokenEntry
from openai_compat.sse import json_bytes

_FLOOR = -9999.0  # OpenAI's stand-in for minus infinity, which JSON does not have


class LegacyLogprobs(TypedDict):
    """Parallel lists, one place per token; offsets count characters of the shown text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class ChatLogprobs:
    """Writes the `logprobs` object of a chat choice for one model.

    An answer may hold a hundred thousand token objects, so all of one but its number is made once
    per token and kept: 10 us for a token with its 20 most likely, which was 37 by way of dicts.
    """

    __slots__ = ("_as_ids", "_spelled", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool = False) -> None:
        """With `as_ids`, tokens are named `token_id:7`, as in vLLM."""
        self._tokenizer = tokenizer
        self._as_ids = as_ids
        # token -> its JSON object before and after the number, without the brace at the end
        self._spelled: dict[int, tuple[bytes, bytes]] = {}

    def write(self, entries: Sequence[TokenEntry]) -> msgspec.Raw:
        """The object as JSON."""
        return msgspec.Raw(b'{"content":[' + self.objects(entries) + b'],"refusal":null}')

    def objects(self, entries: Sequence[TokenEntry]) -> bytes:
        """The objects of the tokens as JSON, joined by commas."""
        return b",".join([self._entry(entry) for entry in entries])

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
            logprobs = [finite(logprob) for logprob in logprobs]
        numbers = json_bytes(logprobs)[1:-1].split(b",")
        return [head + number + tail for (head, tail), number in zip(spelled, numbers, strict=True)]

    def _spell(self, token: int) -> tuple[bytes, bytes]:
        name = by_id(token) if self._as_ids else self._tokenizer.token_text(token)
        text = json_bytes(name)
        raw = json_bytes(list(self._tokenizer.token_bytes(token)))
        spelled = b'{"token":' + text + b',"logprob":', b',"bytes":' + raw
        self._spelled[token] = spelled
        return spelled


def by_id(token: int) -> str:
    """The name of a token for clients who cannot use its text."""
    return f"token_id:{token}"


def legacy_logprobs(entries: Sequence[TokenEntry], name: Callable[[int], str]) -> LegacyLogprobs:
    """The `logprobs` object of a text choice; `name` tells what a token is called.

    `top_logprobs` has the sampled token too when it is not among the most likely ones. Tokens of
    one name share one key; the likelier one keeps it.
    """
    return LegacyLogprobs(
        tokens=[name(entry.token) for entry in entries],
        token_logprobs=[finite(entry.logprobs.logprob) for entry in entries],
        top_logprobs=[_legacy_top(entry, name) for entry in entries],
        text_offset=[entry.offset for entry in entries],
    )


def with_prompt(prompt: LegacyLogprobs, answer: LegacyLogprobs) -> LegacyLogprobs:
    """The object of an echoed prompt and the answer after it."""
    return LegacyLogprobs(
        tokens=prompt["tokens"] + answer["tokens"],
        token_logprobs=prompt["token_logprobs"] + answer["token_logprobs"],
        top_logprobs=prompt["top_logprobs"] + answer["top_logprobs"],
        text_offset=prompt["text_offset"] + answer["text_offset"],
    )


def prompt_logprobs(
    prompt: Sequence[int], told: Sequence[TokenLogprobs], detokenizer: Detokenizer,
    name: Callable[[int], str],
) -> LegacyLogprobs:  # fmt: skip
    """The object of an echoed prompt. Its first token follows nothing, so it has no probability."""
    offsets, offset = [], 0
    for token in prompt:
        offsets.append(offset)
        offset += len(detokenizer.feed((token,)))
    places = zip(prompt[1:], told, offsets[1:], strict=True)
    after = legacy_logprobs([TokenEntry(*place) for place in places], name)
    first = LegacyLogprobs(
        tokens=[name(prompt[0])], token_logprobs=[None], top_logprobs=[None], text_offset=[0]
    )
    return with_prompt(first, after)


def _legacy_top(entry: TokenEntry, name: Callable[[int], str]) -> dict[str, float]:
    top: dict[str, float] = {}
    for token, logprob in (*entry.logprobs.top, (entry.token, entry.logprobs.logprob)):
        top.setdefault(name(token), finite(logprob))
    return top


def finite(logprob: float) -> float:
    """The number, with OpenAI's stand-in for minus infinity."""
    return max(_FLOOR, logprob)
