"""Incremental decoding equals decoding at once, however the tokens are cut."""

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support.tokenizers import byte_level, sentencepiece, text_tokenizer, word_pieces

BYTE_LEVEL = text_tokenizer(byte_level())
STRIPPING = text_tokenizer(sentencepiece(strip=True))
KEEPING = text_tokenizer(sentencepiece(strip=False))
WORD_PIECES = text_tokenizer(word_pieces())
ALL = {"byte-level": BYTE_LEVEL, "strip": STRIPPING, "keep": KEEPING, "words": WORD_PIECES}


def chunks(draw, tokens):
    cuts = sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=8)))
    edges = [0, *cuts, len(tokens)]
    return [tokens[a:b] for a, b in itertools.pairwise(edges)]


@st.composite
def any_tokens(draw):
    """Random ids, mostly bytes and pieces that make and break characters, and text's own ids."""
    tokenizer = ALL[draw(st.sampled_from(sorted(ALL)))]
    ids = st.integers(0, tokenizer.vocab_size + 2)
    text = st.text(max_size=12).map(lambda text: tokenizer.encode(text, special=False))
    parts = draw(st.lists(st.one_of(st.lists(ids, max_size=6), text), max_size=6))
    return tokenizer, [token for part in parts for token in part]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_joined_pieces_equal_the_decode_of_all_tokens(data):
    """No chunking changes the text: pieces and the end add up to the full decode."""
    tokenizer, tokens = data.draw(any_tokens())
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.feed(chunk) for chunk in chunks(data.draw, tokens)]
    assert "".join(pieces) + detokenizer.finish() == tokenizer.decode(tokens)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(ALL)), st.text(max_size=40), st.text(max_size=40))
def test_text_after_a_prompt_goes_on_where_the_prompt_ended(name, prompt, text):
    """With the prompt as context, a first space is kept or stripped as in one decode of both."""
    tokenizer = ALL[name]
    before, after = tokenizer.encode(prompt, special=False), tokenizer.encode(text, special=False)
    fallback = set(getattr(tokenizer._spelling, "_fallback", ()))
    # A run of byte tokens across the border is decoded as a new run, on purpose.
    assume(not (before and after and {before[-1], after[0]} <= fallback))
    detokenizer = tokenizer.detokenizer(after=before)
    whole = tokenizer.decode([*before, *after])
    pieces = [detokenizer.feed((token,)) for token in after]
    assert tokenizer.decode(before) + "".join(pieces) + detokenizer.finish() == whole


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["byte-level", "strip", "keep"]), st.text(max_size=60))
def test_no_piece_holds_half_a_character(name, text):
    """Pieces of well-formed text never contain a replacement the text itself does not have."""
    tokenizer = ALL[name]
    tokens = tokenizer.encode(text.replace("\ufffd", ""), special=False)
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.feed((token,)) for token in tokens] + [detokenizer.finish()]
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize("name", ["byte-level", "strip", "keep", "words"])
def test_tokens_beyond_the_vocabulary_spell_nothing(name):
    """A model may know more ids than its tokenizer; they add no text and break nothing."""
    tokenizer = ALL[name]
    assert tokenizer.detokenizer().feed([tokenizer.vocab_size + 5]) == ""
