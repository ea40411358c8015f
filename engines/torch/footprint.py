"""What a published model takes in memory, by its config.json and the headers of its weights alone.

Nothing here imports torch: `penstock plan` asks before anything heavy is loaded, and a worker asks
the same before it loads. That the figures are what is then allocated, byte for byte, is shown for
every family by tests/conformance/test_footprints.py.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import safe_open

from engines.errors import ModelRejected
from engines.text.model_files import read_object
from engines.torch.checkpoint import check_weights
from engines.torch.encoders import UNUSED, is_encoder, read_purpose
from engines.torch.families import ROPE_BY_LENGTH, Published, read_published
from engines.torch.parallel.layout import is_divided
from engines.torch.recipe import Recipe

# What a family has where its config.json is silent, as transformers fills it in.
CONTEXTS = MappingProxyType(
    {
        "cohere": 8192, "gemma2": 8192, "gemma3_text": 131_072, "glm4": 131_072,
        "gpt_oss": 131_072, "granite": 2048, "llama": 2048, "mistral": 131_072,
        "mixtral": 131_072, "olmo2": 2048, "phi3": 4096, "qwen2": 32_768, "qwen3": 32_768,
        "qwen3_moe": 32_768, "smollm3": 32_768, "starcoder2": 4096,
    }
)  # fmt: skip
TIED = frozenset({"cohere", "gemma2", "gemma3_text", "smollm3", "starcoder2"})

_EMBEDDING = "embed_tokens.weight"
_HEAD = "lm_head."
_EXPERTS = ".experts."
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.self_attn\.(k|v|qkv|o)_proj\.weight")
_MLP = re.compile(r"(?:^|\.)layers\.\d+\.mlp\.(?:down|c)_proj\.weight$")
_PER_BLOCK_BYTE = 2  # mxfp4: numbers of four bits
_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a checkpoint, by its header."""

    name: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it is once loaded: those of mxfp4 are dequantised."""
        if self.name.endswith("_blocks"):
            return _PER_BLOCK_BYTE * prod(self.shape)
        return 0 if self.name.endswith("_scales") else prod(self.shape)

    @property
    def is_embedding(self) -> bool:
        return self.name.endswith(_EMBEDDING) and len(self.shape) == 2

    @property
    def is_head(self) -> bool:
        return self.name.startswith(_HEAD)

    @property
    def is_of_experts(self) -> bool:
        return _EXPERTS in self.name


@dataclass(frozen=True, slots=True)
class Footprint:
    """The sizes of a model, in numbers; what a number takes is chosen when it is loaded."""

    weights: int  # numbers held once
    shared: int  # of these, in an embedding that is the head as well
    head_bytes: int  # of dense layers behind pooled rows: float32 in any case
    kv_width: int  # keys and values of one token in all layers; windows are not cut off
    layers: int
    generates: bool  # else there are no logits
    vocab_size: int
    dtype: str  # that it is published in
    widest: int  # outputs of its widest layer but the head
    max_context: int  # tokens; 0 for encoders, which have no cache to fill
    divided: int = 0  # of the weights: those that tensor parallelism shares out
    mlp_width: int = 0  # columns of an MLP between its products; 0 where there is no plain one
    stored: tuple[Stored, ...] = ()  # the tensors that the weights are; none of encoders

    def weight_bytes(self, item_bytes: int, *, packs: bool, ranks: int = 1) -> int:
        """Bytes of the weights, in each of so many processes that share them.

        Where linear layers are packed, a shared embedding is held twice. Packing pads a matrix
        whose sides are no multiples of 64; that is not counted.
        """
        whole = self.weights - self.divided + (self.shared if packs else 0)
        return (whole + self.divided // ranks) * item_bytes + self.head_bytes

    def kv_bytes_per_token(self, item_bytes: int) -> int:
        """Bytes of keys and values of one token in all layers."""
        return self.kv_width * item_bytes


def read_footprint(path: Path) -> Footprint:
    """The sizes of the model in a directory. Raises ModelRejected for what cannot be served."""
    if is_encoder(path):
        return _of_encoder(path)
    published = read_published(path)
    stored = tuple(_stored(path))
    if not published.generates:
        stored = tuple(tensor for tensor in stored if not tensor.is_head)
    raw, family = published.raw, published.family
    tied = published.generates and bool(raw.get("tie_word_embeddings", family in TIED))
    if tied:  # some checkpoints hold it all the same
        stored = tuple(tensor for tensor in stored if tensor.name != f"{_HEAD}weight")
    embedding = _embedding(path, stored)
    widths, layers = _kv_width(path, stored)
    return Footprint(
        weights=sum(tensor.numbers for tensor in stored),
        shared=embedding.numbers if tied else 0,
        head_bytes=_dense_bytes(published.recipe),
        kv_width=widths,
        layers=layers,
        generates=published.generates,
        vocab_size=embedding.shape[0],
        dtype=_dtype(raw),
        widest=_widest(stored),
        max_context=_max_context(published),
        divided=sum(each.numbers for each in stored if is_divided(each.name, len(each.shape))),
        mlp_width=_mlp_width(stored),
        stored=stored,
    )


def _of_encoder(path: Path) -> Footprint:
    """An encoder keeps nothing between steps."""
    ranks, recipe = read_purpose(path)
    unused = () if ranks else UNUSED
    stored = tuple(tensor for tensor in _stored(path) if not tensor.name.startswith(unused))
    return Footprint(
        weights=sum(tensor.numbers for tensor in stored),
        shared=0,
        head_bytes=0 if ranks else _dense_bytes(recipe),
        kv_width=0,
        layers=0,
        generates=False,
        vocab_size=0,
        dtype=_dtype(read_object(path / "config.json", required=True)),
        widest=_widest(stored),
        max_context=0,
    )


def _stored(path: Path) -> Iterator[Stored]:
    for file in check_weights(path):
        with safe_open(file, framework="numpy") as shard:
            for name in shard.keys():  # noqa: SIM118 - no mapping
                yield Stored(name, tuple(shard.get_slice(name).get_shape()))


def _embedding(path: Path, stored: Iterable[Stored]) -> Stored:
    for tensor in stored:
        if tensor.is_embedding:
            return tensor
    raise ModelRejected(f"the weights in {path} have no {_EMBEDDING}")


def _kv_width(path: Path, stored: Iterable[Stored]) -> tuple[int, int]:
    """Keys and values of a token in all layers, and how many layers there are.

    Read off the projections, since configurations leave out what their family's default is. In a
    fused one the queries come first, as many as the output projection takes.
    """
    total, layers = 0, set[int]()
    for tensor in stored:
        match = _LAYER.search(tensor.name)
        if match and len(tensor.shape) == 2:
            rows, columns = tensor.shape
            layers.add(int(match[1]))
            total += {"k": rows, "v": rows, "qkv": rows, "o": 0}[match[2]]
            total -= columns if match[2] == "o" and _is_fused(stored, match[1]) else 0
    if not total:
        raise ModelRejected(f"the weights in {path} have no projections of keys and values")
    return total, len(layers)


def _is_fused(stored: Iterable[Stored], layer: str) -> bool:
    return any(f"layers.{layer}.self_attn.qkv_proj.weight" in tensor.name for tensor in stored)


def _widest(stored: Iterable[Stored]) -> int:
    outputs = [
        tensor.shape[-2]
        for tensor in stored
        if len(tensor.shape) > 1 and "layer" in tensor.name and "embed" not in tensor.name
    ]
    return max(outputs, default=0)


def _mlp_width(stored: Iterable[Stored]) -> int:
    inputs = [each.shape[1] for each in stored if _MLP.search(each.name)]
    return inputs[0] if inputs else 0


def _dense_bytes(recipe: Recipe) -> int:
    numbers = sum(each.outputs * (each.inputs + each.bias) for each in recipe.dense)
    return numbers * _FLOAT32_BYTES


def _dtype(raw: Mapping[str, object]) -> str:
    named = raw.get("dtype") or raw.get("torch_dtype") or "float32"
    return str(named).removeprefix("torch.")


def _max_context(published: Published) -> int:
    """As `families.read_facts` says it, which a test compares."""
    raw = published.raw
    length = _length(raw.get("max_position_embeddings"), CONTEXTS[published.family])
    for rope in _ropes(raw):
        if rope.get("rope_type", rope.get("type")) in {*ROPE_BY_LENGTH, "su"}:
            original = rope.get("original_max_position_embeddings")
            original = original or raw.get("original_max_position_embeddings")
            length = min(length, _length(original, length))
    return min(length, published.recipe.max_tokens or length)


def _length(given: object, default: int) -> int:
    if given is None:
        return default
    if not isinstance(given, int) or given < 1:
        raise ModelRejected(f"config.json gives a length of {given!r}; it must be a whole number")
    return given


def _ropes(raw: dict[str, Any]) -> list[dict[str, Any]]:
    found = raw.get("rope_parameters") or raw.get("rope_scaling")
    if not isinstance(found, dict):
        return []
    nested = [value for value in found.values() if isinstance(value, dict)]
    return nested or [found]
