"""Random-weight models of every family on disk, sharded as published, and their greedy truth."""

import atexit
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from engines.torch.families import read_facts
from engines.torch.loading import LoadedModel
from engines.torch.vectors import load_head

WINDOW = 32
VOCAB = 512
NEAR_TIE = 2e-5  # logits closer than this could change places on another machine

# Operations this small lose more to waking threads than they gain: 13 times on two busy cores.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Tiny:
    """One shape of one family; `changes` are over the small base configuration."""

    name: str
    family: str
    changes: dict = field(default_factory=dict)
    seed: int = 0

    def __hash__(self) -> int:
        return hash(self.name)

    def config(self):
        base = {
            "vocab_size": VOCAB,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": False,
        }
        return CONFIG_MAPPING[self.family](**base | self.changes)


_ROPE3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + i / 8 for i in range(8)],
    "long_factor": [2.0 + i for i in range(8)],
    "original_max_position_embeddings": 256,
}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
_QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
_TIED = {"tie_word_embeddings": True}

TINY_MODELS = (
    Tiny("llama", "llama"),
    Tiny("llama-mha-tied", "llama", {"num_key_value_heads": 4, **_TIED}),
    Tiny("llama-mqa-wide-heads", "llama", {"num_key_value_heads": 1, "head_dim": 32}),
    Tiny("llama-3-rope", "llama", {"rope_parameters": _ROPE3, "attention_bias": True}),
    Tiny("mistral", "mistral", {"sliding_window": None, "head_dim": 24}),
    Tiny("mistral-window", "mistral", {"sliding_window": WINDOW}),
    Tiny("qwen2", "qwen2", _TIED),
    Tiny("qwen2-window-yarn", "qwen2", {**_QWEN_WINDOW, "rope_parameters": _YARN}),
    Tiny("qwen3", "qwen3", {"head_dim": 32, **_TIED}),
    Tiny("smollm3", "smollm3", {"no_rope_layers": [1, 0]}),
    Tiny("phi3", "phi3", {"partial_rotary_factor": 0.5, "sliding_window": None}),
    Tiny("phi3-window-longrope", "phi3", {"sliding_window": WINDOW, "rope_parameters": _LONGROPE}),
    Tiny("gemma2", "gemma2", {"head_dim": 32, "attn_logit_softcapping": 5.0, **_MIXED, **_TIED}),
    Tiny("gemma3", "gemma3_text", {"head_dim": 32, **_MIXED, **_TIED}),
    Tiny("mixtral", "mixtral", {"num_local_experts": 4}),
    Tiny("mixtral-window", "mixtral", {"num_local_experts": 4, "sliding_window": WINDOW}),
    Tiny(
        "qwen3-moe",
        "qwen3_moe",
        {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 24},
        seed=1,
    ),
    Tiny(
        "gpt-oss",
        "gpt_oss",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 24, **_MIXED},
    ),
    Tiny("granite", "granite", {"attention_multiplier": 0.2, "residual_multiplier": 0.5}),
    Tiny("olmo2", "olmo2", {"num_key_value_heads": 4}),
    Tiny("glm4", "glm4", {"head_dim": 16}),
    Tiny("starcoder2", "starcoder2", {"sliding_window": WINDOW, **_TIED}),
    Tiny("cohere", "cohere", {"use_qk_norm": True, **_TIED}),
)


def by_name(name: str) -> Tiny:
    return next(tiny for tiny in TINY_MODELS if tiny.name == name)


@cache
def model_dir(tiny: Tiny) -> Path:
    """Write the model once per session; several shards, as large models are published."""
    transformers.utils.logging.disable_progress_bar()
    path = Path(mkdtemp(prefix=f"{tiny.name}-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    torch.manual_seed(tiny.seed)
    model = AutoModelForCausalLM.from_config(tiny.config(), dtype=torch.float32)
    # Freshly initialised models repeat themselves: small weights barely tell tokens apart.
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.15)
        elif name.endswith("sinks"):
            nn.init.normal_(weight, mean=2.0, std=1.0)
        elif name.endswith("norm.weight"):
            nn.init.normal_(weight, mean=1.0, std=0.2)
        else:
            nn.init.normal_(weight, std=0.1)
    model.save_pretrained(path, max_shard_size="150KB")
    return path


def unpacked(tiny: Tiny) -> LoadedModel:
    """As `open_model` gives it on a GPU: with torch's own linear layers, but on the CPU."""
    path, device = model_dir(tiny), torch.device("cpu")
    facts = read_facts(path)
    module = getattr(transformers, facts.architecture).from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    head = load_head(facts.recipe, facts.hidden_size, device)
    module = module.eval().requires_grad_(requires_grad=False)
    return LoadedModel(module, facts, device, torch.float32, head)


def prompts(count: int, *, longest: int, seed: int = 0) -> list[list[int]]:
    """Random prompts of 1 to `longest` tokens; the first is the longest, the second one token."""
    rng = np.random.default_rng(seed)
    lengths = [longest, 1, *rng.integers(2, longest, max(0, count - 2))][:count]
    return [rng.integers(3, VOCAB, int(n)).tolist() for n in lengths]


def greedy_truth(path: Path, starts: list[list[int]], new: int) -> list[list[int]]:
    """What transformers itself generates: eager attention, float32, no cache, recomputed in full.

    Prompts are padded on the right, which causal attention never looks at.
    """
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    rows = torch.zeros(len(starts), max(map(len, starts)) + new, dtype=torch.int64)
    lengths = torch.tensor([len(start) for start in starts])
    for row, start in zip(rows, starts, strict=True):
        row[: len(start)] = torch.tensor(start)
    each = torch.arange(len(starts))
    with torch.inference_mode():
        for step in range(new):
            longest = int(lengths.max()) + step
            logits = model(input_ids=rows[:, :longest], use_cache=False).logits
            best = logits[each, lengths + step - 1].topk(2)
            rows[each, lengths + step] = best.indices[:, 0]
            if (gap := float((best.values[:, 0] - best.values[:, 1]).min())) < NEAR_TIE:
                raise ValueError(f"a near tie of {gap:.0e} proves nothing: change seed or prompts")
    return [row[n : n + new].tolist() for row, n in zip(rows, lengths.tolist(), strict=True)]
