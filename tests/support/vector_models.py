"""Served models that make vectors, with a tokenizer of whole words, and their jobs."""

from types import MappingProxyType

from engines.api import Embeds, EngineInfo
from engines.text.prompts import Prompts
from engines.text.tokenizer import Tokenizer
from openai_compat.served import CallContext, ServedModel
from tests.support.words import VOCAB, word_tokenizer

SIZE = 8
CALL = CallContext(id="abc123", now=1_700_000_001, seed=7, cache_salt=b"salt")
PROMPTS = Prompts(MappingProxyType({"query": "w100 ", "document": "w200 ", "plain": ""}))


def vector_model(*, context=12, normalised=True, prompts=None, **purpose) -> ServedModel:
    """An embedding model; `ranks=True, embeds=None` makes it a cross-encoder."""
    tokenizer = Tokenizer(word_tokenizer(), {})
    purpose = {"embeds": Embeds(SIZE, normalised=normalised), "generates": False} | purpose
    info = EngineInfo("tiny", context, VOCAB, 16, 16, 16, **purpose)
    return ServedModel(
        "tiny", 1_700_000_000, info, tokenizer, None, frozenset(), prompts=prompts or Prompts()
    )


def cross_encoder(**changes) -> ServedModel:
    return vector_model(embeds=None, ranks=True, **changes)
