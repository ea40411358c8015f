"""`penstock check` tells what a directory will be served for, and nothing else."""

import shutil

import pytest

from engines.errors import ModelRejected
from gateway.model_check import facts_of
from tests.support.tiny_encoders import (
    ENCODERS,
    RERANKERS,
    encoder_dir,
    sentence_files,
    with_files,
)
from tests.support.tiny_models import by_name, model_dir
from tests.support.words import word_tokenizer


@pytest.fixture
def decoder(tmp_path):
    """A decoder with a tokenizer."""
    path = shutil.copytree(model_dir(by_name("llama")), tmp_path / "decoder")
    word_tokenizer().save(str(path / "tokenizer.json"))
    return path


def test_an_encoder_embeds_and_generates_nothing():
    """Size, length and pooling of its vectors, and where they are said."""
    facts = facts_of(encoder_dir(ENCODERS[0]))
    assert facts["servable"] == "yes"
    assert facts["family"] == "bert (BertModel)"
    assert facts["chat"] == "no: an encoder generates nothing"
    assert facts["embeddings"] == "64 numbers of length 1, mean pooling (by default)"
    assert facts["KV cache"] == "none"


def test_a_cross_encoder_ranks():
    """And makes no embeddings."""
    facts = facts_of(encoder_dir(RERANKERS[1]))
    assert facts["family"] == "roberta (RobertaForSequenceClassification)"
    assert facts["rerank"].startswith("yes")
    assert "embeddings" not in facts


def test_a_chat_model_also_embeds(decoder):
    """By its last row."""
    facts = facts_of(decoder)
    assert facts["chat"] == "no chat template: completions only"
    assert facts["embeddings"] == "64 numbers of length 1, last pooling (by default)"


def test_a_published_embedding_model_only_embeds(decoder):
    """As its modules.json says."""
    files = sentence_files("cls", normalise=False, max_tokens=100)
    facts = facts_of(with_files(decoder, files))
    assert facts["family"] == "llama (LlamaModel)"
    assert facts["chat"] == "no: vectors only"
    assert facts["embeddings"] == "64 numbers as they are, cls pooling (modules.json)"
    assert facts["context"] == "100 tokens"


def test_what_cannot_be_done_is_refused_before_any_weights(decoder):
    """With the file at fault."""
    files = sentence_files("mean", normalise=True)
    files["1_Pooling/config.json"] = {"pooling_mode": "max"}
    with pytest.raises(ModelRejected, match="1_Pooling"):
        facts_of(with_files(decoder, files))
