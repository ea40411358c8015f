"""Random-weight encoders and embedding models on disk, as sentence-transformers publishes them."""

import atexit
import json
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from transformers import CONFIG_MAPPING

from tests.support.words import VOCAB, word_tokenizer

_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 160,
    "pad_token_id": 1,
}
_SHAPES = {
    "distilbert": {"hidden_dim": 128},
    "electra": {"embedding_size": 32},
}


@dataclass(frozen=True)
class TinyEncoder:
    """One encoder; `files` are its sentence-transformers files, by name."""

    name: str
    family: str
    stem: str
    head: str = "Model"
    files: dict = field(default_factory=dict)
    dense: tuple = ()

    def __hash__(self):
        return hash(self.name)

    @property
    def architecture(self):
        return self.stem + self.head

    def config(self):
        shape = _SHAPES.get(self.family, {})
        labels = {"num_labels": 1} if "Classification" in self.head else {}
        return CONFIG_MAPPING[self.family](**_SIZES | shape | labels)


def sentence_files(pooling, *, normalise, dense=(), max_tokens=None):
    """modules.json and what it names, for a kind of pooling."""
    flags = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
    config = {f"pooling_mode_{flag}": name == pooling for name, flag in flags.items()}
    parts = ["Transformer", "Pooling", *["Dense"] * len(dense), *["Normalize"] * normalise]
    files = {"1_Pooling/config.json": {"word_embedding_dimension": 64, **config}}
    modules = []
    for place, kind in enumerate(parts):
        path = f"{place}_{kind}" if place else ""
        modules.append(
            {"idx": place, "name": str(place), "path": path,
             "type": f"sentence_transformers.models.{kind}"}
        )  # fmt: skip
    for place, (inputs, outputs, activation) in enumerate(dense, start=2):
        files[f"{place}_Dense/config.json"] = {
            "in_features": inputs,
            "out_features": outputs,
            "bias": True,
            "activation_function": f"torch.nn.modules.activation.{activation}",
        }
    if max_tokens is not None:
        settings = {"max_seq_length": max_tokens, "do_lower_case": False}
        files["sentence_bert_config.json"] = settings
    return {"modules.json": modules, **files}


ENCODERS = (
    TinyEncoder("bert", "bert", "Bert"),
    TinyEncoder("roberta", "roberta", "Roberta"),
    TinyEncoder("xlm-roberta", "xlm-roberta", "XLMRoberta"),
    TinyEncoder("camembert", "camembert", "Camembert"),
    TinyEncoder("distilbert", "distilbert", "DistilBert"),
    TinyEncoder("electra", "electra", "Electra"),
)
RERANKERS = tuple(
    TinyEncoder(f"{e.name}-rank", e.family, e.stem, "ForSequenceClassification") for e in ENCODERS
)


def with_files(path, files):
    """Write JSON files below a directory."""
    for name, value in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(json.dumps(value))
    return path


def shaken(model):
    """Weights large enough that texts differ: fresh ones barely tell tokens apart."""
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.15)
        elif name.endswith(("norm.weight", "LayerNorm.weight")):
            nn.init.normal_(weight, mean=1.0, std=0.2)
        else:
            nn.init.normal_(weight, std=0.1)
    return model


@cache
def encoder_dir(tiny) -> Path:
    """Write the model once per session, with a tokenizer of whole words w0, w1, ..."""
    transformers.utils.logging.disable_progress_bar()
    path = Path(mkdtemp(prefix=f"{tiny.name}-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    torch.manual_seed(len(tiny.name))
    shaken(getattr(transformers, tiny.architecture)(tiny.config())).save_pretrained(path)
    word_tokenizer().save(str(path / "tokenizer.json"))
    with_files(path, tiny.files)
    for place, (inputs, outputs, _) in enumerate(tiny.dense, start=2):
        weights = shaken(nn.Linear(inputs, outputs)).state_dict()
        named = {f"linear.{key}": value for key, value in weights.items()}
        save_file(named, path / f"{place}_Dense" / "model.safetensors")
    return path
