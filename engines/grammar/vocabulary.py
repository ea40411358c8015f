"""A model's tokens as llguidance wants them: the bytes of each, and which stand for no text.

Four things are done by hand, since llguidance reading tokenizer.json itself gets them wrong:

- Text that spells an added token (`<tool_call>` in a JSON string) is encoded as plain characters.
  Encoded as that token it would contradict the grammar, and end the sequence with an error.
- A text in the middle of a sequence gets no space put before it, as some tokenizers do at a start.
- Ids between the tokenizer's vocabulary and the model's stand for nothing, and are never allowed.
- Every end-of-sequence id counts, not one.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any

import tokenizers
from llguidance import LLTokenizer


class _Spelled:
    """The attributes and the call that `LLTokenizer` asks of a tokenizer written in Python."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self, encoder: tokenizers.Tokenizer, tokens: list[bytes], special: list[int], eos: int
    ) -> None:
        self._encoder = encoder
        self.tokens: Sequence[bytes] = tokens
        self.special_token_ids: Sequence[int] = special
        self.eos_token_id = eos

    def __call__(self, text: str) -> list[int]:
        return self._encoder.encode(text, add_special_tokens=False).ids


def read_vocabulary(tokenizer_json: str, vocab_size: int, eos: Collection[int]) -> LLTokenizer:
    """The vocabulary of a model with `vocab_size` tokens, any of `eos` ending a sequence.

    Raises ValueError for tokenizers whose tokens are not strings of bytes (WordPiece, say), a
    model with fewer tokens than its tokenizer, or no end-of-sequence token.
    """
    ends = sorted(eos)
    known = LLTokenizer(tokenizer_json, n_vocab=vocab_size, eos_token=ends)
    special = [token for token in range(vocab_size) if known.is_special_token(token)]
    tokens = [known.decode_bytes([token]) for token in range(vocab_size)]
    spelled = _Spelled(_plain_encoder(tokenizer_json, frozenset(special)), tokens, special, ends[0])
    # The stub asks for its own class; the library looks at attributes only.
    return LLTokenizer(spelled, n_vocab=vocab_size, eos_token=ends)  # type: ignore[arg-type]


def _plain_encoder(tokenizer_json: str, special: frozenset[int]) -> tokenizers.Tokenizer:
    """The same tokenizer without special tokens, and without anything put around a text."""
    described = json.loads(tokenizer_json)
    described["added_tokens"] = [
        token for token in described.get("added_tokens", ()) if token["id"] not in special
    ]
    described["post_processor"] = described["truncation"] = described["padding"] = None
    for part in ("normalizer", "pre_tokenizer"):
        described[part] = _without_prefix(described.get(part))
    return tokenizers.Tokenizer.from_str(json.dumps(described))


def _without_prefix(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer that leaves the start of a text as it is."""
    if part is None or part["type"] == "Prepend":
        return None
    if part["type"] == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if part["type"] == "ByteLevel":
        return {**part, "add_prefix_space": False}
    inner = {"normalizers", "pretokenizers"} & set(part)
    return {**part, **{key: [kept for one in part[key] if (kept := _without_prefix(one))]
                       for key in inner}}  # fmt: skip
