"""Modules of transformers replaced by ones that compute the same with fewer launches.

Only classes that are known by name are replaced, where all of their parts are as expected; whatever
is not stays as transformers wrote it. What a fused module computes is compared with what it
replaced in tests/unit/engines/cuda.

    layer      norm, attention, add and norm, MLP, add
    attention  one product for queries, keys and values; rotation and KV write in one kernel
    MLP        one product for gate and up; silu and product in one kernel
    norm       one kernel
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from engines.torch.attention import Rule
from engines.torch.cuda.attention import Step
from engines.torch.cuda.port import Heads, Kernels

# Families whose modules are those of Llama, but for what is read off each module below.
_PLAIN = ("Llama", "Mistral", "Qwen2", "Qwen3")
_LAYERS = frozenset(f"{family}DecoderLayer" for family in _PLAIN)
_MLPS = frozenset(f"{family}MLP" for family in (*_PLAIN, "Granite", "SmolLM3"))
_ATTENTIONS = frozenset(f"{family}Attention" for family in (*_PLAIN, "Granite", "Mixtral"))
_NORMS = frozenset(
    f"{family}RMSNorm" for family in (*_PLAIN, "Granite", "Mixtral", "Phi3", "Qwen3Moe", "SmolLM3")
)
_SILU = frozenset({"SiLU", "SiLUActivation"})
_WINDOW_IN_CONFIG = frozenset({"MistralAttention", "MixtralAttention"})


def fuse(module: nn.Module, kernels: Kernels) -> dict[str, int]:
    """Replace what is known below `module`; how many of each class were replaced."""
    done: Counter[str] = Counter()
    for name in [name for name, _ in module.named_children()]:
        child = module.get_submodule(name)
        made = _fused(child, kernels)
        if made is None:
            done.update(fuse(child, kernels))
            continue
        setattr(module, name, made)
        done[type(child).__name__] += 1
        del child  # and its weights, of which there are joined copies
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # Joined weights do not fit where their parts were, and torch would keep both.
            torch.cuda.empty_cache()
    return dict(done)


def _fused(module: nn.Module, kernels: Kernels) -> nn.Module | None:
    if not type(module).__module__.startswith("transformers.models.") or not _plain(module):
        return None
    name = type(module).__name__
    if name in _LAYERS:
        return FusedLayer(module, kernels)
    if name in _ATTENTIONS:
        return FusedAttention(module, kernels)
    if name in _MLPS and type(module.act_fn).__name__ in _SILU:
        return FusedMlp(module, kernels)
    return FusedNorm(module, kernels) if name in _NORMS else None


def _plain(module: nn.Module) -> bool:
    """Whether all linear layers below a module are torch's own, so that they can be joined."""
    names = [name for name, _ in module.named_modules() if name.endswith("_proj")]
    return all(type(module.get_submodule(name)) is nn.Linear for name in names)


class FusedNorm(nn.Module):
    """An RMS norm by one kernel."""

    def __init__(self, norm: Any, kernels: Kernels) -> None:
        super().__init__()
        self.weight: Tensor = norm.weight
        self.eps: float = norm.variance_epsilon
        self._kernels = kernels

    def forward(self, rows: Tensor) -> Tensor:
        return self._kernels.norm(rows, self.weight, self.eps)


class FusedMlp(nn.Module):
    """A gated MLP with one product in and one out."""

    def __init__(self, mlp: Any, kernels: Kernels) -> None:
        super().__init__()
        self.gate_up = _joined(mlp.gate_proj, mlp.up_proj)
        self.down: nn.Linear = mlp.down_proj
        self._kernels = kernels

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.down(self._kernels.gate(self.gate_up(rows)))
        return out


class FusedAttention(nn.Module):
    """Attention of Llama's kind, over the KV blocks of a step."""

    def __init__(self, attention: Any, kernels: Kernels) -> None:
        super().__init__()
        config = attention.config
        self.layer_idx: int = attention.layer_idx
        self.qkv = _joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out: nn.Linear = attention.o_proj
        self._kernels = kernels
        in_config = type(attention).__name__ in _WINDOW_IN_CONFIG
        window = getattr(config if in_config else attention, "sliding_window", None)
        self._rule = Rule(attention.scaling, window)
        self.q_norm: Any = getattr(attention, "q_norm", None)
        self.k_norm: Any = getattr(attention, "k_norm", None)
        dim = int(attention.head_dim)
        # Not those of the configuration, which is the whole model's where this is a part.
        queries = int(attention.q_proj.out_features) // dim
        self._shape = (queries, int(attention.k_proj.out_features) // dim, dim)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        *,
        paged: Step,
        **_: Any,
    ) -> tuple[Tensor, None]:
        layer, heads = paged.layer(self.layer_idx), self._heads()
        qkv = self.qkv(hidden_states[0]).view(-1, heads.queries + 2 * heads.kv, heads.dim)
        cos, sin = position_embeddings
        queries = self._kernels.rotate(qkv, (cos[0], sin[0]), layer, heads)
        mixed = self._kernels.attend(queries, layer, self._rule)
        return self.out(mixed.flatten(1))[None], None

    def _heads(self) -> Heads:
        """With the weights where they lie now: a module may have moved since it was made."""
        if self.q_norm is None or self.k_norm is None:
            return Heads(*self._shape)
        eps = float(self.q_norm.variance_epsilon)
        return Heads(*self._shape, eps, self.q_norm.weight, self.k_norm.weight)


class FusedLayer(nn.Module):
    """A decoder layer of Llama's kind."""

    def __init__(self, layer: Any, kernels: Kernels) -> None:
        super().__init__()
        self.attention = FusedAttention(layer.self_attn, kernels)
        self.mlp: nn.Module = _fused(layer.mlp, kernels) or layer.mlp
        self.before = FusedNorm(layer.input_layernorm, kernels)
        self.between = FusedNorm(layer.post_attention_layernorm, kernels)
        self._kernels = kernels

    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        mixed, _ = self.attention(self.before(hidden_states), **arguments)
        norm = self.between
        summed, normed = self._kernels.add_norm(mixed, hidden_states, norm.weight, norm.eps)
        out: Tensor = summed + self.mlp(normed)
        return out


def _joined(*linears: Any) -> nn.Linear:
    """One layer with the outputs of several, which share their input."""
    weight = torch.cat([linear.weight.detach() for linear in linears])
    biased = linears[0].bias is not None
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=biased, device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    if biased:
        bias = torch.cat([linear.bias.detach() for linear in linears])
        joined.bias = nn.Parameter(bias, requires_grad=False)
    return joined
