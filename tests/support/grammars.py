"""Grammars for tests: a compiler over the byte-level test tokenizer, and what to ask of it."""

import json
import string
from functools import cache

from llguidance import LLTokenizer
from tokenizers import Tokenizer, decoders, models

from engines.grammar.compiler import Grammar, GrammarCompiler
from engines.grammar.vocabulary import read_vocabulary
from tests.support.tokenizers import EOS, byte_level

TOKENIZER = byte_level()
END = TOKENIZER.token_to_id(EOS)


@cache
def vocabulary(vocab_size: int) -> LLTokenizer:
    """The test tokenizer for a model of so many tokens (at least 360)."""
    return read_vocabulary(TOKENIZER.to_str(), vocab_size, {END})


def compiler(vocab_size: int, **changes: int) -> GrammarCompiler:
    """A compiler of its own, to be closed by the engine it is given to."""
    return GrammarCompiler(vocabulary(vocab_size), **changes)


def json_grammar(schema: object) -> str:
    """The grammar of a JSON schema, without optional white space."""
    return json.dumps(
        {"grammars": [{"json_schema": {**schema, "x-guidance": {"whitespace_flexible": False}}}]}
    )


def regex_grammar(regex: str) -> str:
    """The grammar of a regular expression."""
    return json.dumps({"grammars": [{"lark_grammar": f"start: /{regex}/"}]})


def text(tokens: list[int]) -> str:
    """What tokens say, without the special ones."""
    return TOKENIZER.decode(tokens)


@cache
def letters() -> GrammarCompiler:
    """Over 50 tokens: the letters, a to z as 0 to 25 and A to X as 26 to 49, which ends.

    Never closed: the scheduler's machine makes thousands of runners over it.
    """
    vocabulary = {letter: place for place, letter in enumerate(string.ascii_letters[:50])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return GrammarCompiler(read_vocabulary(tokenizer.to_str(), 50, {49}))


@cache
def forcing() -> Grammar:
    """A grammar of `letters` in which a d forces six letters, and an e two."""
    return letters().compile('start: (/[a-c]/ | "dfghijk" | "elm")*').result()
