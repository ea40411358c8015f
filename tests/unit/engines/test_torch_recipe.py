"""What a directory says about its vectors is done as written, or refused by name."""

import json
import shutil

import pytest

from engines.errors import ModelRejected
from engines.torch.encoder_loading import open_encoder
from engines.torch.encoders import is_encoder, read_encoder
from engines.torch.families import read_facts
from engines.torch.loading import open_model
from engines.torch.recipe import Pooling, Recipe, read_recipe
from tests.support.tiny_encoders import (
    ENCODERS,
    RERANKERS,
    encoder_dir,
    sentence_files,
    with_files,
)
from tests.support.tiny_models import by_name, model_dir

DEFAULT = Recipe(Pooling.LAST)
BERT = ENCODERS[0]
POOLING = "1_Pooling/config.json"


@pytest.fixture
def encoder(tmp_path):
    """A private copy of a good encoder."""
    return shutil.copytree(encoder_dir(BERT), tmp_path / "encoder")


@pytest.fixture
def decoder(tmp_path):
    """A private copy of a good decoder."""
    return shutil.copytree(model_dir(by_name("llama")), tmp_path / "decoder")


def configure(path, **changes):
    file = path / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def recipe_of(path, files):
    return read_recipe(with_files(path, files), DEFAULT)


def test_without_files_the_default_holds(tmp_path):
    """Nothing is guessed from names."""
    assert read_recipe(tmp_path, DEFAULT) is DEFAULT


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("normalise", [True, False])
def test_poolings_are_read(tmp_path, pooling, normalise):
    """The mode, the norm and the longest text."""
    files = sentence_files(pooling, normalise=normalise, max_tokens=77)
    recipe = recipe_of(tmp_path, files)
    assert recipe == Recipe(pooling, (), normalise, max_tokens=77, declared=True)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode": "cls"}, Pooling.CLS),
        ({"pooling_mode": ["lasttoken"]}, Pooling.LAST),
        ({}, Pooling.MEAN),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pooling.CLS),
    ],
)
def test_every_spelling_of_a_pooling_is_read(tmp_path, config, pooling):
    """The newer name, the older flags, and the mean where nothing is said."""
    files = sentence_files("mean", normalise=True) | {POOLING: config}
    assert recipe_of(tmp_path, files).pooling is pooling


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode": "max"},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode_cls_token": True},  # and the mean, by default
        {"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode": "mean", "include_prompt": False},
        {"pooling_mode": 7},
    ],
)
def test_other_poolings_are_refused(tmp_path, config):
    """Each names the file."""
    files = sentence_files("mean", normalise=True) | {POOLING: config}
    with pytest.raises(ModelRejected, match="1_Pooling"):
        recipe_of(tmp_path, files)


def module(kind, path=""):
    return {"type": f"sentence_transformers.models.{kind}", "path": path}


@pytest.mark.parametrize(
    "modules",
    [
        [module("CLIPModel")],
        [module("Transformer"), module("WeightedLayerPooling", "1_W")],
        [module("Transformer"), module("Pooling", "1_Pooling"), module("LayerNorm", "2_L")],
        [module("Transformer", "0_Transformer"), module("Pooling", "1_Pooling")],
        [module("Transformer"), module("Normalize")],
        [module("Transformer"), module("Pooling", "../elsewhere")],
        [{"path": ""}],
        ["Transformer"],
        {},
        "text",
    ],
)
def test_other_modules_are_refused(tmp_path, modules):
    """What is not done as written is not done."""
    with pytest.raises(ModelRejected, match=r"modules\.json"):
        recipe_of(tmp_path, sentence_files("mean", normalise=True) | {"modules.json": modules})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"activation_function": "torch.nn.modules.activation.Hardtanh"}, "Hardtanh"),
        ({"in_features": 0}, "positive"),
        ({}, "only safetensors"),
    ],
)
def test_a_dense_layer_that_cannot_be_done_is_refused(tmp_path, changes, match):
    """Activation, sizes and weights."""
    files = sentence_files("mean", normalise=True, dense=((64, 32, "Tanh"),))
    files["2_Dense/config.json"] |= changes
    with pytest.raises(ModelRejected, match=match):
        recipe_of(tmp_path, files)


@pytest.mark.parametrize("length", [0, -1, "many", 1.5])
def test_an_impossible_text_length_is_refused(tmp_path, length):
    """max_seq_length is a count, or null."""
    files = sentence_files("mean", normalise=True)
    files["sentence_bert_config.json"] = {"max_seq_length": length}
    with pytest.raises(ModelRejected, match="max_seq_length"):
        recipe_of(tmp_path, files)


def test_a_dense_layer_must_fit(encoder):
    """It says what it takes and what it gets."""
    tiny = ENCODERS[0]
    files = sentence_files("mean", normalise=True, dense=((32, 16, "Tanh"),))
    with_files(encoder, files)
    shutil.copy(encoder_dir(tiny) / "model.safetensors", encoder / "2_Dense")
    with pytest.raises(ModelRejected, match="takes 32 numbers, but gets 64"):
        open_encoder(encoder)


def test_the_longest_text_is_the_lesser_of_files_and_model(encoder):
    """sentence_bert_config.json cannot lengthen a model."""
    assert read_encoder(encoder).max_context == 160
    with_files(encoder, sentence_files("mean", normalise=True, max_tokens=77))
    assert read_encoder(encoder).max_context == 77
    with_files(encoder, {"sentence_bert_config.json": {"max_seq_length": 9999}})
    assert read_encoder(encoder).max_context == 160


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architectures": ["BertForTokenClassification"]}, "BertForTokenClassification"),
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"is_decoder": True}, "decoder"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"position_embedding_type": "relative_key"}, "absolute"),
        ({"hidden_size": 0}, "hidden_size|positive"),
        ({"hidden_size": "wide"}, "not a valid bert"),
    ],
)
def test_other_encoders_are_refused(encoder, changes, match):
    """With what was found."""
    configure(encoder, **changes)
    with pytest.raises(ModelRejected, match=match):
        read_encoder(encoder)


def test_a_classifier_of_several_labels_is_refused(tmp_path):
    """It ranks nothing."""
    path = shutil.copytree(encoder_dir(RERANKERS[0]), tmp_path / "ranker")
    configure(path, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    with pytest.raises(ModelRejected, match="2 labels"):
        read_encoder(path)


def test_a_language_models_head_is_left_aside_where_the_files_say_that_it_embeds(encoder):
    """Published embedding models may still name the class they were tuned from."""
    with_files(encoder, sentence_files("mean", normalise=True))
    configure(encoder, architectures=["BertForMaskedLM"])
    assert type(open_encoder(encoder).module).__name__ == "BertModel"


def test_an_encoder_is_told_by_its_config(encoder, decoder, tmp_path):
    """A directory without one is none."""
    assert is_encoder(encoder)
    assert not is_encoder(decoder)
    with pytest.raises(ModelRejected, match=r"config\.json is missing"):
        is_encoder(tmp_path / "nowhere")


def test_a_decoder_with_files_makes_vectors_only(decoder):
    """modules.json decides, whatever class config.json names; its head is not loaded."""
    assert read_facts(decoder).generates
    with_files(decoder, sentence_files("last", normalise=True, max_tokens=100))
    facts = read_facts(decoder)
    assert (facts.generates, facts.max_context) == (False, 100)
    assert facts.recipe.pooling is Pooling.LAST
    assert type(open_model(decoder).module).__name__ == "LlamaModel"


def test_a_bare_decoder_makes_vectors_only(decoder):
    """The class without a head, by the family's default recipe."""
    configure(decoder, architectures=["LlamaModel"])
    facts = read_facts(decoder)
    assert not facts.generates
    assert facts.recipe == Recipe(Pooling.LAST, normalise=True)
    assert type(open_model(decoder).module).__name__ == "LlamaModel"
