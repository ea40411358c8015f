"""Incremental decoding by example, and its cost."""

import pytest

from tests.support.tokenizers import byte_level, sentencepiece, text_tokenizer


def pieces(tokenizer, text, after=()):
    detokenizer = tokenizer.detokenizer(after=after)
    tokens = tokenizer.encode(text, special=False)
    return [detokenizer.feed([token]) for token in tokens], detokenizer.finish()


def test_a_character_comes_with_its_last_byte():
    """Bytes of an emoji without a token of its own wait for the last one."""
    assert pieces(text_tokenizer(byte_level()), "😀") == (["", "", "", "😀"], "")


def test_an_unfinished_character_ends_as_the_full_decode_has_it():
    """Half a character at the end is one replacement, as in the decode of all tokens."""
    tokenizer = text_tokenizer(byte_level())
    tokens = tokenizer.encode("a😀", special=False)[:-1]
    detokenizer = tokenizer.detokenizer()
    assert detokenizer.feed(tokens) == "a"
    assert detokenizer.finish() == tokenizer.decode(tokens)[1:] == "\ufffd"


def test_the_first_space_goes_only_at_the_start_of_a_text():
    """A Llama-2 answer loses its leading space; one that continues a prompt keeps it."""
    tokenizer = text_tokenizer(sentencepiece(strip=True))
    assert pieces(tokenizer, "hello world")[0] == ["hello", " world"]
    prompt = tokenizer.encode("hello", special=False)
    assert pieces(tokenizer, "hello world", after=prompt)[0] == [" hello", " world"]


def test_a_run_of_byte_tokens_waits_for_its_end():
    """A byte-fallback decoder may still turn the whole run into replacements."""
    tokenizer = text_tokenizer(sentencepiece(strip=False))
    got, rest = pieces(tokenizer, "日a")
    assert got == ["", "", "", "日a"]
    assert rest == ""


@pytest.mark.parametrize("backend", [byte_level, sentencepiece])
def test_the_cost_of_a_token_does_not_grow_with_the_text(backend):
    """The backend is asked to decode short windows only."""
    tokenizer = text_tokenizer(backend())
    asked = []
    detokenizer = tokenizer.detokenizer()
    original = getattr(detokenizer, "_decode", None)
    if original is not None:
        detokenizer._decode = lambda tokens: asked.append(len(tokens)) or original(tokens)
    for token in tokenizer.encode("hello the world of ends " * 200, special=False):
        detokenizer.feed([token])
    assert max(asked, default=0) <= 4
