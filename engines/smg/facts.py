"""What an SMG server is: what it tells of itself, and what its operator must tell for it. Pure.

TensorRT-LLM 1.3 tells max_seq_len and the size of its tokenizer, which may lack added tokens. Of
its batch, its KV blocks and its end tokens it tells nothing.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from engines.api import Capability, EngineInfo
from engines.errors import ModelRejected
from engines.limits import Limits
from engines.self_batching.admission import Bounds
from engines.trtllm.config import SAMPLER_PARTS
from engines.trtllm.features import Features
from engines.trtllm.sampling import Writer

# What some servers do and some silently do not; "llguidance": their guided decoding backend.
HONOURS = SAMPLER_PARTS | {"cache_salt", "llguidance"}
_MARGIN = 4  # Limits asks for it; no step of ours is ever planned from them


class ModelInfo(Protocol):
    """A GetModelInfoResponse, as far as we read it; 0 is "not told"."""

    model_id: str
    max_seq_len: int
    max_batch_size: int
    vocab_size: int


@dataclass(frozen=True, slots=True)
class Given:
    """What the operator says of a server. It goes before what the server says of itself."""

    num_blocks: int | None = None  # KV blocks; no server tells them
    max_running: int | None = None  # its max_batch_size
    max_context: int | None = None  # its max_seq_len
    vocab_size: int | None = None  # of the model, added tokens included
    block_size: int = 32  # its tokens_per_block
    max_num_tokens: int = 8192  # in one iteration
    name: str | None = None  # of the model
    ends: frozenset[int] = frozenset()  # tokens at which it ends by itself: the model's end tokens
    honours: frozenset[str] = frozenset()  # of HONOURS
    ageing_s: float = 5.0  # seconds of waiting that outweigh one class of priority


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the engine goes by; constant from the end of `start`."""

    info: EngineInfo
    limits: Limits
    bounds: Bounds
    writer: Writer
    biases: bool  # the server takes a bias for every token there is


def read_facts(told: ModelInfo, given: Given) -> Facts:
    """Raises ModelRejected naming what neither side tells, or what nobody knows."""
    unknown = sorted(given.honours - HONOURS)
    if unknown:
        raise ModelRejected(f"honours: unknown {', '.join(unknown)}; known: {sorted(HONOURS)}")
    sizes = {
        "max_context": given.max_context or told.max_seq_len,
        "max_running": given.max_running or told.max_batch_size,
        "num_blocks": given.num_blocks or 0,
        "block_size": given.block_size,
        "vocab_size": given.vocab_size or told.vocab_size,
    }
    missing = [name for name, size in sizes.items() if size < 1]
    if missing:
        raise ModelRejected(f"the server does not tell {', '.join(missing)}: set them for it")
    limits = Limits(
        max_context=sizes["max_context"],
        max_running=sizes["max_running"],
        tokens_per_step=max(given.max_num_tokens, sizes["max_running"] + _MARGIN),
        block_size=given.block_size,
        num_blocks=sizes["num_blocks"],
        vocab_size=sizes["vocab_size"],
    )
    writer = _writer(given, limits.vocab_size)
    biases = told.vocab_size == limits.vocab_size  # else it refuses every bias by its length
    unbiased = frozenset() if biases else frozenset({Capability.LOGIT_BIAS, Capability.GUIDES})
    info = EngineInfo(
        model=given.name or PurePosixPath(told.model_id).name or "model",
        max_context=limits.max_context,
        vocab_size=limits.vocab_size,
        block_size=limits.block_size,
        num_blocks=limits.num_blocks,
        max_running=limits.max_running,
        capabilities=writer.capabilities - unbiased,
    )
    bounds = Bounds(limits.max_running, given.max_num_tokens, limits.num_blocks, limits.block_size)
    return Facts(info, limits, bounds, writer, biases)


def _writer(given: Given, vocab_size: int) -> Writer:
    nothing: frozenset[str] = frozenset()
    return Writer(
        features=Features(
            arguments=nothing,
            kv_cache=nothing,
            scheduler=nothing,
            queue_policies=nothing,
            sampling=frozenset({"prompt_ignore_length"}),
            call=given.honours & {"cache_salt"},
        ),
        vocab_size=vocab_size,
        ends=given.ends,
        applies=given.honours & SAMPLER_PARTS,
        grammars="llguidance" in given.honours,
    )
