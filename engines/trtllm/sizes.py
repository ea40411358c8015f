"""What a TensorRT-LLM engine says of itself, from its configuration and its number of blocks."""

from pathlib import Path

from engines.api import EngineInfo
from engines.limits import Limits
from engines.trtllm.config import Config
from engines.trtllm.sampling import Writer

_MARGIN = 4  # Limits asks for it; no step of ours is ever planned from them


def sizes(config: Config, writer: Writer, num_blocks: int) -> tuple[EngineInfo, Limits]:
    """The two, which agree."""
    limits = Limits(
        max_context=config.max_seq_len,
        max_running=config.max_running,
        tokens_per_step=max(config.max_num_tokens, config.max_running + _MARGIN),
        block_size=config.block_size,
        num_blocks=num_blocks,
        vocab_size=writer.vocab_size,
    )
    info = EngineInfo(
        model=config.own.name or Path(config.model).name,
        max_context=limits.max_context,
        vocab_size=limits.vocab_size,
        block_size=limits.block_size,
        num_blocks=num_blocks,
        max_running=limits.max_running,
        capabilities=writer.capabilities,
        adapters=tuple(sorted(config.own.adapters)),
        extras=writer.specials.extras,
    )
    return info, limits
