"""The encoder families on offer, and the facts of one model read from its config.json.

Encoders see all of a text at once and generate nothing: they embed texts, or, with one label on
top, judge pairs of them. A family is offered when tests/conformance/test_encoders.py shows its
vectors equal to transformers' own attention.
"""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engines.errors import ModelRejected
from engines.text.model_files import read_object
from engines.torch.recipe import Pooling, Recipe, read_recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# What sentence-transformers makes of a plain BERT, and normalised, as its published models are.
_DEFAULT = Recipe(Pooling.MEAN)


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of encoder: the stem of its classes, and where its positions begin."""

    stem: str  # BertModel, BertForSequenceClassification
    positions_after_padding: bool = False  # the first position is the padding token's id + 1


# What checkpoints hold beside the encoder: heads of their pretraining, and what is computed anew.
UNUSED = (
    "cls.", "lm_head.", "pooler.", "vocab_", "generator_", "discriminator_",
    "bert.pooler.", "roberta.pooler.", "embeddings.position_ids",
    "bert.embeddings.position_ids", "roberta.embeddings.position_ids",
)  # fmt: skip

# config.json's model_type -> how transformers computes it.
ENCODERS = MappingProxyType(
    {
        "bert": Family("Bert"),
        "camembert": Family("Camembert", positions_after_padding=True),
        "distilbert": Family("DistilBert"),
        "electra": Family("Electra"),
        "roberta": Family("Roberta", positions_after_padding=True),
        "xlm-roberta": Family("XLMRoberta", positions_after_padding=True),
    }
)


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What the rest of the engine must know of an encoder."""

    family: str  # model_type
    architecture: str  # transformers class
    ranks: bool  # it judges pairs; else it embeds
    vocab_size: int
    max_context: int  # tokens
    layers: int
    hidden_size: int
    first_position: int
    dtype: str  # of the checkpoint
    recipe: Recipe
    token_types: int = 1  # 2 where the second text of a pair is told from the first


def is_encoder(path: Path) -> bool:
    """Whether config.json names a family of encoders. Raises ModelRejected without a config."""
    return read_object(path / "config.json", required=True).get("model_type") in ENCODERS


def read_purpose(path: Path) -> tuple[bool, Recipe]:
    """Whether it ranks, and how its vectors are made. Raises ModelRejected; needs no torch."""
    raw: dict[str, Any] = read_object(path / "config.json", required=True)
    recipe = read_recipe(path, _DEFAULT)
    return _ranks(raw, str(raw.get("model_type")), recipe), recipe


def read_encoder(path: Path) -> EncoderFacts:
    """The facts of the encoder in a local directory. Raises ModelRejected for what is not done."""
    raw: dict[str, Any] = read_object(path / "config.json", required=True)
    family = str(raw.get("model_type"))
    config = _parse(raw, family)
    recipe = read_recipe(path, _DEFAULT)
    ranks = _ranks(raw, family, recipe)
    if ranks and config.num_labels != 1:
        raise ModelRejected(
            f"the classifier has {config.num_labels} labels; supported: one, which ranks pairs"
        )
    first = int(config.pad_token_id or 0) + 1 if ENCODERS[family].positions_after_padding else 0
    length = int(config.max_position_embeddings) - first
    return EncoderFacts(
        family=family,
        architecture=ENCODERS[family].stem + ("ForSequenceClassification" if ranks else "Model"),
        ranks=ranks,
        vocab_size=int(config.vocab_size),
        max_context=min(length, recipe.max_tokens or length),
        layers=int(config.num_hidden_layers),
        hidden_size=int(config.hidden_size),
        first_position=first,
        dtype=str(config.dtype or "float32").removeprefix("torch."),
        recipe=recipe,
        token_types=int(getattr(config, "type_vocab_size", 1) or 1),
    )


def _parse(raw: dict[str, Any], family: str) -> "PretrainedConfig":
    from transformers import CONFIG_MAPPING  # noqa: PLC0415 - it brings torch: see footprint.py

    if "quantization_config" in raw:
        raise ModelRejected("the checkpoint is quantised; encoders are served unquantised only")
    if raw.get("is_decoder") or raw.get("add_cross_attention"):
        raise ModelRejected(f"{family} as a decoder is not supported")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ModelRejected("position_embedding_type: only absolute positions are supported")
    try:
        config: PretrainedConfig = CONFIG_MAPPING[family].from_dict(raw)
        sizes = [config.vocab_size, config.num_hidden_layers, config.hidden_size]
        sizes += [config.num_attention_heads, config.max_position_embeddings]
    except Exception as error:  # any failure of a third party's parser means the same
        raise ModelRejected(
            f"config.json is not a valid {family} configuration: {error}"
        ) from error
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ModelRejected(f"config.json has a size that is not a positive integer: {sizes}")
    return config


def _ranks(raw: dict[str, Any], family: str, recipe: Recipe) -> bool:
    """Whether the checkpoint is a cross-encoder; the bare encoder otherwise."""
    stem = ENCODERS[family].stem
    found = raw.get("architectures") or [f"{stem}Model"]
    if found == [f"{stem}ForSequenceClassification"]:
        return True
    # Embedding models tuned from a language model may still name its head; modules.json decides.
    embeds = [f"{stem}Model", *([f"{stem}ForMaskedLM"] if recipe.declared else [])]
    if len(found) == 1 and found[0] in embeds:
        return False
    raise ModelRejected(
        f"model_type {family!r}, architectures {found!r} is not supported; supported: {stem}Model"
        f" and {stem}ForSequenceClassification with one label"
    )
