"""Prompts of embedding models, and batches of texts cut on request."""

import json
from types import MappingProxyType

import pytest

from engines.errors import ModelRejected
from engines.text.many import Cut, Side, cut_tokens, encode_many, shortened
from engines.text.prompts import Prompts, read_prompts
from engines.text.tokenizer import Tokenizer
from tests.support.tokenizers import byte_level
from tests.support.words import CLS, SEP, word_tokenizer

WORDS = Tokenizer(word_tokenizer(), {})
BYTES = Tokenizer(byte_level(), {})


def write(path, **config):
    (path / "config_sentence_transformers.json").write_text(json.dumps(config))


def test_a_directory_without_prompts_has_none(tmp_path):
    """Texts stay as they are."""
    prompts = read_prompts(tmp_path)
    assert (prompts.of_query, prompts.of_document) == (None, None)
    assert prompts.applied("Text") == "Text"


def test_prompts_are_read_and_applied(tmp_path):
    """By name, by default, and not at all where the name says so."""
    write(tmp_path, prompts={"query": "Q: ", "passage": "P: "}, default_prompt_name="passage")
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    prompts = read_prompts(tmp_path)
    assert prompts.applied("Text") == "p: text"
    assert prompts.applied("Text", "query") == "q: text"
    assert (prompts.of_query, prompts.of_document) == ("query", "passage")


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_the_prompt_of_documents_has_several_names(name):
    """Those that sentence-transformers looks for."""
    assert Prompts(MappingProxyType({name: ""})).of_document == name


@pytest.mark.parametrize(
    "config",
    [
        {"prompts": ["Q: "]},
        {"prompts": {"query": 7}},
        {"prompts": {"query": ""}, "default_prompt_name": "other"},
        {"default_prompt_name": 7},
    ],
)
def test_prompts_that_cannot_be_are_refused(tmp_path, config):
    """Naming the file."""
    write(tmp_path, **config)
    with pytest.raises(ModelRejected, match="config_sentence_transformers"):
        read_prompts(tmp_path)


@pytest.mark.parametrize("text", ["hello world", "", "Ünïcödé 🌊", "a" * 5000])
def test_a_batch_has_the_tokens_of_each_text(text):
    """As one by one."""
    (alone,) = encode_many([text], BYTES)
    both = encode_many(["other", text], BYTES)
    assert list(alone.tokens) == BYTES.encode(text, special=True)
    assert both[1] == alone


def test_a_pair_says_where_its_second_text_begins():
    """By the token types that the tokenizer gives."""
    (pair,) = encode_many([("w5 w6", "w7")], WORDS)
    assert (pair.tokens, pair.second) == ((CLS, 5, 6, SEP, 7, SEP), 4)


@pytest.mark.parametrize(
    ("cut", "tokens", "second"),
    [
        (Cut(6), (CLS, 5, SEP, 6, 7, SEP), 3),
        (Cut(6, Side.LEFT), (CLS, 5, SEP, 8, 9, SEP), 3),
        (Cut(4), (CLS, 5, SEP, SEP), 3),
        (Cut(1), (CLS, 5, SEP, SEP), 3),
        (Cut(99), (CLS, 5, SEP, 6, 7, 8, 9, SEP), 3),
    ],
)
def test_only_the_second_text_of_a_pair_is_cut(cut, tokens, second):
    """Special tokens and the first text stay, even where that is too much."""
    (pair,) = encode_many([("w5", "w6 w7 w8 w9")], WORDS, cut=cut)
    assert (pair.tokens, pair.second) == (tokens, second)


def test_token_ids_are_cut_on_one_side():
    """None stays as it is."""
    assert cut_tokens([1, 2, 3], None) == (1, 2, 3)
    assert cut_tokens([1, 2, 3], Cut(2)) == (1, 2)
    assert cut_tokens([1, 2, 3], Cut(2, Side.LEFT)) == (2, 3)


def test_a_shortened_text_is_its_own_beginning():
    """Up to the end of a token, whatever spaces lie between."""
    assert shortened(["w5  w6   w7", "w5"], WORDS, 2) == ["w5  w6", "w5"]
