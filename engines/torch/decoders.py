"""Which decoder computes a loaded model: ours for CUDA where Triton is, else the reference."""

import importlib.util
import logging
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from engines.step import BlockBytes, StepPlan
from engines.torch.loading import LoadedModel
from engines.torch.paged import PagedDecoder

_log = logging.getLogger(__name__)


class Decoder(Protocol):
    """A model over its KV blocks. All but `close` raise RuntimeError once it is closed."""

    @property
    def block_bytes(self) -> int:
        """The size of a block's content."""

    def save(self, blocks: Sequence[int]) -> list[BlockBytes]:
        """The contents of blocks, there once the device has come so far."""

    def logits(self, plan: StepPlan) -> Tensor:
        """Float32 logits [samples, vocab] of a plan's sample rows; good until the next plan."""

    def close(self) -> None:
        """Free everything. Idempotent."""


def open_decoder(
    loaded: LoadedModel,
    *,
    num_blocks: int,
    block_size: int,
    max_rows: int,
    graphs: str | None = "start",
) -> Decoder:
    """The fastest decoder for a model's device.

    `graphs` is one of `engines.torch.cuda.graphs`; None: steps are not even padded for them.
    """
    if loaded.device.type == "cuda":
        if importlib.util.find_spec("triton") is not None:
            from engines.torch.cuda.opening import open_cuda  # noqa: PLC0415 - needs Triton

            return open_cuda(
                loaded, num_blocks=num_blocks, block_size=block_size, max_rows=max_rows,
                graphs=graphs,
            )  # fmt: skip
        _log.warning("Triton is not installed: the model runs without our kernels and CUDA graphs")
    return PagedDecoder(loaded, num_blocks=num_blocks, block_size=block_size)
