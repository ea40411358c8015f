"""Which models are divided among processes, and which of their tensors: by name, without torch.

The names are those of transformers' own plans for these families, as a test shows: outputs of the
first products are divided ("colwise"), and so are the inputs of those behind them ("rowwise").
Families whose plans say more than that (experts, fused or gathered projections) are not offered.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import ModelRejected
from engines.torch.families import read_facts

if TYPE_CHECKING:
    from engines.torch.footprint import Footprint

DIVIDED = frozenset(
    {"cohere", "gemma2", "gemma3_text", "granite", "llama"}
    | {"mistral", "qwen2", "qwen3", "smollm3", "starcoder2"}
)
OUTPUTS = frozenset({"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "c_fc"})
INPUTS = frozenset({"o_proj", "down_proj", "c_proj"})
HEAD_NORMS = frozenset({"q_norm", "k_norm"})  # of two dimensions: weights of their own for a head

_PLACE = re.compile(r"(?:^|\.)layers\.\d+\.(?:self_attn|mlp)\.(\w+)\.(weight|bias)$")


def is_divided(name: str, dimensions: int) -> bool:
    """Whether each process holds a part of a tensor. A bias behind a sum is added once, whole."""
    match = _PLACE.search(name)
    if match is None:
        return False
    layer, kind = match.groups()
    return (
        layer in OUTPUTS
        or (layer in INPUTS and kind == "weight")
        or (layer in HEAD_NORMS and dimensions == 2)
    )


def check_divisible(path: Path, footprint: "Footprint", ranks: int) -> None:
    """Raise ModelRejected where the model in a directory cannot be shared by so many processes."""
    why = _why_not(path, footprint, ranks)
    if why is not None:
        raise ModelRejected(f"--tensor-parallel {ranks}: {why}")


def _why_not(path: Path, footprint: "Footprint", ranks: int) -> str | None:
    if not footprint.generates:
        return "a model that does not generate is not divided"
    facts = read_facts(path)
    if facts.family not in DIVIDED:
        return f"{facts.family} is not divided; families that are: {', '.join(sorted(DIVIDED))}"
    if facts.kv_heads % ranks:
        return f"{facts.kv_heads} KV heads cannot be shared by {ranks}"
    if footprint.mlp_width % ranks:
        return f"an MLP of {footprint.mlp_width} columns cannot be shared by {ranks}"
    return None
