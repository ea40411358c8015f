"""The model families on offer, and the facts of one model read from its config.json.

A family is offered when tests/conformance/test_families.py shows its greedy tokens equal to
transformers' own attention. Everything else is refused at start, with the name of what was found.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engines.errors import ModelRejected
from engines.torch.encoders import ENCODERS
from engines.torch.recipe import Pooling, Recipe, read_recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# config.json's model_type -> the transformers class that computes it.
FAMILIES = MappingProxyType(
    {
        "cohere": "CohereForCausalLM",
        "gemma2": "Gemma2ForCausalLM",
        "gemma3_text": "Gemma3ForCausalLM",
        "glm4": "Glm4ForCausalLM",
        "gpt_oss": "GptOssForCausalLM",
        "granite": "GraniteForCausalLM",
        "llama": "LlamaForCausalLM",
        "mistral": "MistralForCausalLM",
        "mixtral": "MixtralForCausalLM",
        "olmo2": "Olmo2ForCausalLM",
        "phi3": "Phi3ForCausalLM",
        "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "qwen3_moe": "Qwen3MoeForCausalLM",
        "smollm3": "SmolLM3ForCausalLM",
        "starcoder2": "Starcoder2ForCausalLM",
    }
)

# Without the head that makes logits: what embedding models of these families are published as.
BARE = MappingProxyType(
    {
        family: {"Gemma3ForCausalLM": "Gemma3TextModel"}.get(
            name, name.replace("ForCausalLM", "Model")
        )
        for family, name in FAMILIES.items()
    }
)

# The last row has seen all the others.
_DEFAULT_RECIPE = Recipe(Pooling.LAST)

ITEM_BYTES = MappingProxyType({"float32": 4, "bfloat16": 2})

_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})

# Frequencies that change with the length of the longest row of a batch: a token would then depend
# on its batch-mates. Below the original length they do not change, so the context ends there.
ROPE_BY_LENGTH = frozenset({"dynamic", "longrope"})


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the rest of the engine must know of a model."""

    family: str  # model_type
    architecture: str  # transformers class
    vocab_size: int
    max_context: int  # tokens
    layers: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    eos_ids: tuple[int, ...]
    dtype: str  # of the checkpoint
    quantization: str | None = None  # of the checkpoint; weights are dequantised at load
    generates: bool = True  # else it was published to make vectors, and makes only those
    recipe: Recipe = _DEFAULT_RECIPE

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes of keys and values of one token in all layers, in float32 or bfloat16."""
        return 2 * self.layers * self.kv_heads * self.head_dim * ITEM_BYTES[dtype]


@dataclass(frozen=True, slots=True)
class Published:
    """What a directory says itself, before transformers fills in its family's defaults."""

    raw: dict[str, Any]  # config.json
    family: str
    quantization: str | None
    generates: bool
    recipe: Recipe


def choose_dtype(name: str, published: str, *, on_gpu: bool) -> str:
    """What a data type means for a checkpoint published in another. Raises ModelRejected."""
    if name == "auto":
        name = "bfloat16" if on_gpu and published in ("bfloat16", "float16") else "float32"
    if name not in ITEM_BYTES:
        raise ModelRejected(f"dtype {name!r} is not supported; use auto, {', '.join(ITEM_BYTES)}")
    return name


def read_published(path: Path) -> Published:
    """What the model in a directory is published as. Raises ModelRejected; needs no torch."""
    raw = _read_json(path / "config.json")
    family = _family(raw)
    quantization = _quantization(raw, family)
    recipe = read_recipe(path, _DEFAULT_RECIPE)
    generates = not recipe.declared and raw.get("architectures") != [BARE[family]]
    return Published(raw, family, quantization, generates, recipe)


def read_facts(path: Path) -> ModelFacts:
    """The facts of the model in a local directory.

    Raises ModelRejected when there is no usable config.json, or it describes what is not offered.
    """
    published = read_published(path)
    family, recipe, generates = published.family, published.recipe, published.generates
    config = _parse(published.raw, family)
    _check_shape(config)
    length = _max_context(config)
    heads = int(config.num_attention_heads)
    return ModelFacts(
        family=family,
        architecture=(FAMILIES if generates else BARE)[family],
        vocab_size=int(config.vocab_size),
        max_context=min(length, recipe.max_tokens or length),
        layers=int(config.num_hidden_layers),
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        hidden_size=int(config.hidden_size),
        eos_ids=_eos_ids(path, config),
        dtype=str(config.dtype or "float32").removeprefix("torch."),
        quantization=published.quantization,
        generates=generates,
        recipe=recipe,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelRejected(f"no {path.name} in {path.parent}: not a model directory") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRejected(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise ModelRejected(f"{path} must hold a JSON object, found {type(raw).__name__}")
    return raw


def _family(raw: dict[str, Any]) -> str:
    family = raw.get("model_type")
    architectures = raw.get("architectures") or []
    names = (FAMILIES.get(str(family)), BARE.get(str(family)))
    if family in FAMILIES and architectures in ([], *([name] for name in names)):
        return str(family)
    custom = ", which needs code from the model directory (never run)" if "auto_map" in raw else ""
    raise ModelRejected(
        f"model_type {family!r}, architectures {architectures!r}{custom}, is not supported; "
        f"supported: {', '.join(f'{k} ({v})' for k, v in FAMILIES.items())}; "
        f"to embed and to rank: {', '.join(ENCODERS)}"
    )


def _quantization(raw: dict[str, Any], family: str) -> str | None:
    found = raw.get("quantization_config")
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else found
    if family == "gpt_oss" and method == "mxfp4":
        return "mxfp4"
    raise ModelRejected(
        f"checkpoint is quantised with {method!r}; supported: unquantised float32, bfloat16 and "
        "float16, and mxfp4 for gpt_oss"
    )


def _parse(raw: dict[str, Any], family: str) -> "PretrainedConfig":
    """Let transformers fill in the family's defaults, by the native class only."""
    from transformers import CONFIG_MAPPING  # noqa: PLC0415 - it brings torch: see footprint.py

    try:
        config: PretrainedConfig = CONFIG_MAPPING[family].from_dict(raw)
    except Exception as error:  # any failure of a third party's parser means the same
        raise ModelRejected(
            f"config.json is not a valid {family} configuration: {error}"
        ) from error
    return config


def _check_shape(config: "PretrainedConfig") -> None:
    for name in ("vocab_size", "num_hidden_layers", "num_attention_heads", "hidden_size"):
        count = getattr(config, name, None)
        if not isinstance(count, int) or count < 1:
            raise ModelRejected(f"{name} in config.json must be a positive integer, is {count!r}")
    unknown = set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES
    if unknown:
        raise ModelRejected(
            f"layer types {sorted(unknown)} are not supported; supported: {sorted(_LAYER_TYPES)}"
        )
    if getattr(config, "use_bidirectional_attention", None):
        raise ModelRejected("bidirectional attention is not supported: tokens are never re-read")


def _max_context(config: "PretrainedConfig") -> int:
    length = int(config.max_position_embeddings)
    for rope in _ropes(config):
        if rope.get("rope_type", "default") in ROPE_BY_LENGTH:
            original = rope.get("original_max_position_embeddings")
            original = original or getattr(config, "original_max_position_embeddings", None)
            length = min(length, int(original or length))
    return length


def _ropes(config: "PretrainedConfig") -> list[dict[str, Any]]:
    """The rotary parameters: one set, or one per layer type."""
    found = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in found.values() if isinstance(value, dict)]
    return nested if "rope_type" not in found and nested else [found]


def _eos_ids(path: Path, config: "PretrainedConfig") -> tuple[int, ...]:
    """generation_config.json wins: chat models list their end-of-turn token there."""
    ids = getattr(config, "eos_token_id", None)
    file = path / "generation_config.json"
    if file.exists():
        ids = _read_json(file).get("eos_token_id", ids)
    if ids is None:
        return ()
    return tuple(int(i) for i in ids) if isinstance(ids, list | tuple) else (int(ids),)
