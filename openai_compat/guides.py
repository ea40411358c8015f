"""The fields that forbid tokens: allowed ones only, and words that are never said."""

from engines.text.tokenizer import Tokenizer
from openai_compat.fields import Fields, wrong

GUIDE_FIELDS = frozenset({"allowed_token_ids", "bad_words"})
MAX_BAD_WORDS = 64
MAX_BAD_WORD_BYTES = 256


def read_allowed(fields: Fields, vocab_size: int) -> frozenset[int] | None:
    """The only tokens that may be sampled, or None for all. Raises `RequestRejected`."""
    given = fields.items("allowed_token_ids", vocab_size)
    if given is None:
        return None
    param = fields.param("allowed_token_ids")
    if not given:
        raise wrong(param, "an array of at least one token id", given)
    return frozenset(check_tokens(given, vocab_size, param))


def read_bad_words(fields: Fields, tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """Each word as the tokens that spell it at the start of a text and after a space, as in vLLM.

    Raises `RequestRejected` naming the place, such as `bad_words[2]`.
    """
    banned: dict[tuple[int, ...], None] = {}
    param = fields.param("bad_words")
    for place, word in enumerate(fields.items("bad_words", MAX_BAD_WORDS) or ()):
        where = f"{param}[{place}]"
        if not isinstance(word, str) or not word.strip():
            raise wrong(where, "a string that is not blank", word)
        if len(word.encode()) > MAX_BAD_WORD_BYTES:
            raise wrong(where, f"a string of at most {MAX_BAD_WORD_BYTES} bytes", word)
        bare = word.lstrip()
        for spelling in (bare, f" {bare}"):
            banned[tuple(tokenizer.encode(spelling, special=False))] = None
    return tuple(tokens for tokens in banned if tokens)


def check_tokens(values: list[object], vocab_size: int, param: str) -> list[int]:
    """The values as token ids. Raises `RequestRejected` naming the first that is none."""
    tokens: list[int] = []
    for place, value in enumerate(values):
        if type(value) is not int or not 0 <= value < vocab_size:
            raise wrong(f"{param}[{place}]", f"a token id from 0 to {vocab_size - 1}", value)
        tokens.append(value)
    return tokens
