"""The tokenizer of a model directory."""

import json

import pytest
from tokenizers import pre_tokenizers

from engines.errors import ModelRejected
from engines.text.pieces import byte_level_bytes
from engines.text.tokenizer import Tokenizer
from tests.support.tokenizers import (
    BOS,
    EOS,
    byte_level,
    sentencepiece,
    text_tokenizer,
    word_pieces,
    write_model_dir,
)


def test_loads_what_was_saved(tmp_path):
    """tokenizer.json and the named tokens of tokenizer_config.json are enough."""
    path = write_model_dir(tmp_path, byte_level(), bos_token=BOS, eos_token={"content": EOS})
    tokenizer = Tokenizer.from_directory(path)
    assert tokenizer.decode(tokenizer.encode("hello world é", special=False)) == "hello world é"
    assert tokenizer.named_tokens == {"bos_token": BOS, "eos_token": EOS}
    assert tokenizer.vocab_size == byte_level().get_vocab_size()


def test_missing_file_is_named(tmp_path):
    """A directory without tokenizer.json is refused with the file's name."""
    with pytest.raises(ModelRejected, match=r"tokenizer\.json is missing"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"version":"1.0"}'])
def test_broken_file_is_named(tmp_path, content):
    """A file that is no tokenizer is refused with its name."""
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelRejected, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize("config", ["{", "[1]", '{"bos_token": 5}'])
def test_broken_config_is_named(tmp_path, config):
    """A tokenizer_config.json that cannot be used is refused with its name."""
    write_model_dir(tmp_path, byte_level())
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(ModelRejected, match=r"tokenizer_config\.json"):
        Tokenizer.from_directory(tmp_path)


def test_a_spelled_special_token_is_that_token():
    """As in transformers, also in text that users wrote."""
    tokenizer = text_tokenizer()
    assert tokenizer.encode(f"a{EOS}", special=False)[-1] == tokenizer.token_id(EOS)


def test_special_adds_what_the_post_processor_adds():
    """BOS comes with `special`, as transformers adds it to completions, and only then."""
    tokenizer = text_tokenizer(byte_level(bos=True))
    plain = tokenizer.encode("hello", special=False)
    assert tokenizer.encode("hello", special=True) == [tokenizer.token_id(BOS), *plain]


def test_decoding_leaves_special_tokens_out():
    """Special tokens have no text; other added tokens have."""
    tokenizer = text_tokenizer()
    ids = [tokenizer.token_id(text) for text in (BOS, "hello", "<tool_call>", EOS)]
    assert tokenizer.decode(ids) == "hello<tool_call>"
    assert tokenizer.special_tokens >= {ids[0], ids[3]}


def test_truncation_and_padding_of_the_file_are_off(tmp_path):
    """A saved truncation would silently cut prompts."""
    backend = byte_level()
    backend.enable_truncation(2)
    backend.enable_padding(length=64)
    tokenizer = Tokenizer.from_directory(write_model_dir(tmp_path, backend))
    assert tokenizer.decode(tokenizer.encode("hello world hello", special=False)) == (
        "hello world hello"
    )


def test_named_tokens_missing_from_the_file_are_added(tmp_path):
    """As in transformers: a named token is a special token."""
    path = write_model_dir(tmp_path, byte_level(), pad_token="<|pad|>")
    tokenizer = Tokenizer.from_directory(path)
    assert tokenizer.encode("<|pad|>", special=False) == [tokenizer.token_id("<|pad|>")]
    assert tokenizer.decode([tokenizer.token_id("<|pad|>")]) == ""


@pytest.mark.parametrize(
    ("piece", "text", "raw"),
    [
        ("hello", "hello", b"hello"),
        ("Ġworld", " world", b" world"),
        ("Ã©", "é", "é".encode()),
        ("Ã", "\ufffd", b"\xc3"),
        (EOS, EOS, EOS.encode()),
        ("<tool_call>", "<tool_call>", b"<tool_call>"),
    ],
)
def test_byte_level_tokens_are_described_for_logprobs(piece, text, raw):
    """Text for people, bytes exact; special tokens by their name."""
    tokenizer = text_tokenizer()
    token = tokenizer.token_id(piece)
    assert (tokenizer.token_text(token), tokenizer.token_bytes(token)) == (text, raw)


@pytest.mark.parametrize(
    ("piece", "text", "raw"),
    [
        ("▁hello", " hello", b" hello"),
        ("ing", "ing", b"ing"),
        ("<0xE2>", "\ufffd", b"\xe2"),
        ("<0x41>", "A", b"A"),
        ("</s>", "</s>", b"</s>"),
    ],
)
def test_sentencepiece_tokens_are_described_for_logprobs(piece, text, raw):
    """A leading space is part of the token; byte tokens are their byte."""
    tokenizer = text_tokenizer(sentencepiece())
    token = tokenizer.token_id(piece)
    assert (tokenizer.token_text(token), tokenizer.token_bytes(token)) == (text, raw)


def test_word_pieces_are_described_in_the_middle_of_a_text():
    """The joining space belongs to the token that causes it."""
    tokenizer = text_tokenizer(word_pieces())
    assert tokenizer.token_text(tokenizer.token_id("world")) == " world"


def test_an_unknown_id_describes_as_nothing():
    """Models may know more ids than their tokenizer."""
    tokenizer = text_tokenizer()
    assert tokenizer.token_text(10**6) == ""
    assert tokenizer.token_bytes(10**6) == b""


def test_every_byte_has_its_character():
    """The table is the alphabet of the tokenizers library, byte for byte."""
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    assert {byte_level_bytes(letter) for letter in letters} == {bytes([b]) for b in range(256)}
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "".join(map(chr, range(0x250)))
    assert byte_level_bytes(spelled.pre_tokenize_str(text)[0][0]) == text.encode()


@pytest.mark.parametrize("piece", ["a b", "日", "\u00ad", "\n"])
def test_a_piece_outside_of_the_alphabet_is_its_own_text(piece):
    """Added tokens with spaces or other scripts are not written in the alphabet."""
    assert byte_level_bytes(piece) == piece.encode()


def test_configs_may_be_absent(tmp_path):
    """tokenizer.json alone is a tokenizer."""
    byte_level().save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_directory(tmp_path).named_tokens == {}


def test_json_of_the_bundled_model_loads(bundled):
    """The model in the package goes the fast byte-level way."""
    tokenizer = Tokenizer.from_directory(bundled)
    names = json.loads((bundled / "tokenizer_config.json").read_text())
    assert tokenizer.named_tokens["eos_token"] == names["eos_token"]
    text = "Penstock streams tokens, née 日本 🙂\n"
    tokens = tokenizer.encode(text, special=False)
    assert tokenizer.decode(tokens) == text
    detokenizer = tokenizer.detokenizer()
    assert "".join(detokenizer.feed([token]) for token in tokens) == text
