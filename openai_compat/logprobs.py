"""Logprobs as the two routes show them: chat's list of objects, completions' parallel lists."""

from collections.abc import Sequence

from engines.text.tokenizer import Tokenizer
from openai_compat.choice import TokenEntry

_FLOOR = -9999.0  # OpenAI's stand-in for minus infinity, which JSON does not have


def chat_logprobs(entries: Sequence[TokenEntry], tokenizer: Tokenizer) -> dict[str, object]:
    """The `logprobs` object of a chat choice."""
    return {"content": [_chat_entry(entry, tokenizer) for entry in entries], "refusal": None}


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


def _chat_entry(entry: TokenEntry, tokenizer: Tokenizer) -> dict[str, object]:
    top = [_chat_token(token, logprob, tokenizer) for token, logprob in entry.logprobs.top]
    return {**_chat_token(entry.token, entry.logprobs.logprob, tokenizer), "top_logprobs": top}


def _chat_token(token: int, logprob: float, tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "token": tokenizer.token_text(token),
        "logprob": _finite(logprob),
        "bytes": list(tokenizer.token_bytes(token)),
    }


def _legacy_top(entry: TokenEntry, tokenizer: Tokenizer) -> dict[str, float]:
    top: dict[str, float] = {}
    for token, logprob in (*entry.logprobs.top, (entry.token, entry.logprobs.logprob)):
        top.setdefault(tokenizer.token_text(token), _finite(logprob))
    return top


def _finite(logprob: float) -> float:
    return max(_FLOOR, logprob)
