"""Special tokens that an output syntax needs are spelled out; others stay silent."""

from engines.text.tokenizer import Tokenizer
from tests.support.tokenizers import BOS, EOS, byte_level, sentencepiece


def test_only_the_named_specials_are_spelled():
    """In the middle of a text, and between tokens of one event."""
    tokenizer = Tokenizer(byte_level(), {})
    tokens = tokenizer.encode(f"hello{BOS} world{EOS}", special=False)
    spelled = frozenset({tokenizer.token_id(BOS)})
    whole, single = (tokenizer.detokenizer(spelled=spelled) for _ in range(2))
    assert whole.feed(tokens) + whole.finish() == f"hello{BOS} world"
    text = "".join([single.feed((token,)) for token in tokens])
    assert text + single.finish() == f"hello{BOS} world"


def test_a_special_token_ends_an_open_character():
    """Half a character before it becomes U+FFFD, and nothing after it is lost."""
    tokenizer = Tokenizer(byte_level(), {})
    half = tokenizer.encode("ß", special=False)[:1]
    marker = tokenizer.token_id(BOS)
    decoder = tokenizer.detokenizer(spelled=frozenset({marker}))
    text = decoder.feed(half) + decoder.feed((marker,))
    text += decoder.feed(tokenizer.encode("ok", special=False)) + decoder.finish()
    assert text == f"\ufffd{BOS}ok"


def test_spaces_around_a_spelled_token_are_kept():
    """A decoder that strips the first space of a text does not strip one after a marker."""
    tokenizer = Tokenizer(sentencepiece(), {})
    marker = tokenizer.token_id("<s>")
    words = tokenizer.encode("hello world", special=False)
    assert marker in tokenizer.special_tokens
    decoder = tokenizer.detokenizer(spelled=frozenset({marker}))
    text = decoder.feed([*words, marker, *words]) + decoder.finish()
    assert text == tokenizer.decode(words) + "<s> " + tokenizer.decode(words)


def test_without_specials_to_spell_nothing_is_wrapped():
    """Ordinary models pay nothing."""
    tokenizer = Tokenizer(byte_level(), {})
    assert type(tokenizer.detokenizer(spelled=frozenset({1}))) is type(tokenizer.detokenizer())
