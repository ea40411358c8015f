"""What a vLLM engine says of itself once it has loaded."""

from dataclasses import dataclass
from typing import Any

from engines.api import EngineInfo
from engines.errors import ModelRejected
from engines.limits import Limits
from engines.self_batching.admission import Bounds
from engines.vllm.sampling import Writer

_MARGIN = 4  # Limits asks for it; no step of ours is ever planned from them
_NULL_BLOCKS = 1  # vLLM keeps one block for its own


@dataclass(frozen=True, slots=True)
class Sizes:
    """The three, which agree."""

    info: EngineInfo
    limits: Limits
    bounds: Bounds


def vocab_size(vllm_config: Any) -> int:
    """Of the model: what its logits have."""
    return int(vllm_config.model_config.get_vocab_size())


def sizes(vllm_config: Any, name: str, writer: Writer) -> Sizes:
    """Raises ModelRejected where the engine does not tell how many KV blocks it has."""
    scheduler, cache = vllm_config.scheduler_config, vllm_config.cache_config
    blocks = int(cache.num_gpu_blocks or 0) - _NULL_BLOCKS
    if blocks < 1:
        raise ModelRejected("vLLM has no KV blocks: is there too little memory for them?")
    running, rows = int(scheduler.max_num_seqs), int(scheduler.max_num_batched_tokens)
    limits = Limits(
        max_context=int(vllm_config.model_config.max_model_len),
        max_running=running,
        tokens_per_step=max(rows, running + _MARGIN),
        block_size=int(cache.block_size),
        num_blocks=blocks,
        vocab_size=writer.vocab_size,
    )
    info = EngineInfo(
        model=name,
        max_context=limits.max_context,
        vocab_size=limits.vocab_size,
        block_size=limits.block_size,
        num_blocks=blocks,
        max_running=running,
        capabilities=writer.capabilities,
    )
    return Sizes(info, limits, Bounds(running, rows, blocks, limits.block_size))
