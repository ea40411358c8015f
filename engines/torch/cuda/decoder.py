"""A loaded decoder over its KV blocks on CUDA: kernels of ours, and graphs for decoding steps."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.step import BlockBytes, StepPlan
from engines.torch.cuda import attention
from engines.torch.cuda.fused import fuse
from engines.torch.cuda.graphs import Buckets, Graphs
from engines.torch.cuda.packing import RowPacker, buckets, views
from engines.torch.cuda.port import Kernels, Rows
from engines.torch.kv import KvBlocks
from engines.torch.loading import LoadedModel
from engines.torch.staging import Upload, upload

_log = logging.getLogger(__name__)

_ENTRIES = 1 << 22  # blocks in the tables of one graph's step: 16 MiB


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a decoder holds, and the most rows that one decoding step has."""

    num_blocks: int
    block_size: int
    max_rows: int


class CudaDecoder:
    """As `PagedDecoder`, for models that generate. It replaces modules of the model it is given.

    Without `graphs` every step runs as it is: no buckets, and nothing is warmed up.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sizes: Sizes,
        kernels: Kernels,
        *,
        graphs: Graphs | None = Graphs.START,
    ) -> None:
        facts, device = loaded.facts, loaded.device
        self._module: nn.Module | None = loaded.module
        self._kv: KvBlocks | None = KvBlocks(
            layers=facts.layers,
            num_blocks=sizes.num_blocks,
            kv_heads=facts.kv_heads,
            block_size=sizes.block_size,
            head_dim=facts.head_dim,
            dtype=loaded.dtype,
            device=device,
        )
        self._kernels = kernels
        self._device = device
        self._vocab = facts.vocab_size
        config: Any = loaded.module.config
        heads = int(config.num_attention_heads)  # of the whole model, as its KV heads here
        group = heads // int(getattr(config, "num_key_value_heads", None) or heads)
        self._packer = RowPacker(sizes.block_size, self._kv.scratch, group)
        self._upload = Upload(device)
        attention.install()
        config._attn_implementation = attention.NAME  # noqa: SLF001 - as its own setter does
        self.fused = fuse(loaded.module, kernels)
        self._buckets: Buckets | None = (
            None if graphs is None else self._made_buckets(loaded, sizes, graphs)
        )

    @property
    def block_bytes(self) -> int:
        """The size of a block's content. Raises RuntimeError once closed."""
        return self._blocks.block_bytes

    def save(self, blocks: Sequence[int]) -> list[BlockBytes]:
        """The contents of blocks: as `KvBlocks.save` says. Raises RuntimeError once closed."""
        return self._blocks.save(blocks)

    def logits(self, plan: StepPlan) -> Tensor:
        """Float32 logits [samples, vocab] of a plan's sample rows; good until the next plan.

        Copies and restores blocks first, as the plan says. Raises RuntimeError once closed.
        """
        self._blocks.copy_blocks(plan.copies)
        self._blocks.restore(plan.restores)
        if not plan.rows:
            return torch.empty(0, self._vocab, dtype=torch.float32, device=self._device)
        bucket = self._bucket(plan)
        if bucket is None or self._buckets is None:
            return self._eager(plan)
        found = self._buckets.run(self._packer.pack(plan, bucket))
        if np.array_equal(plan.sample_rows, np.arange(plan.rows)):
            return found[: plan.rows]
        return found[self._sampled(plan)]

    def close(self) -> None:
        """Free the blocks, the weights and the graphs. Idempotent."""
        self._kv = self._module = self._buckets = None

    @property
    def _blocks(self) -> KvBlocks:
        if self._kv is None:
            raise RuntimeError("the runner is closed")
        return self._kv

    def _made_buckets(self, loaded: LoadedModel, sizes: Sizes, graphs: Graphs) -> Buckets:
        per_row = min(sizes.num_blocks, -(-loaded.facts.max_context // sizes.block_size))
        reason = not_captured(loaded.module)
        if reason is not None and graphs is not Graphs.OFF:
            _log.warning("decoding runs without CUDA graphs: %s", reason)
        made = Buckets(
            self._rows_logits,
            buckets(sizes.max_rows),
            vocab=loaded.facts.vocab_size,
            entries=1 + min(_ENTRIES, sizes.max_rows * per_row),
            device=loaded.device,
            graphs=graphs if reason is None else Graphs.OFF,
        )
        if graphs is Graphs.START:
            with torch.inference_mode():
                self._warm(sizes.block_size)
                made.capture_all(self._blocks.scratch, self._blocks.scratch * sizes.block_size)
        return made

    def _warm(self, block_size: int) -> None:
        """A step of a row and a chunk over scratch, so that kernels are compiled by then."""
        scratch = self._blocks.scratch
        ints = partial(np.array, dtype=np.int32)
        plan = StepPlan(
            tokens=ints([0, 0, 0]), positions=ints([0, 0, 1]),
            write_slots=ints([scratch * block_size] * 3), row_starts=ints([0, 1, 3]),
            past=ints([0, 0]), segment_lanes=ints([0, 1]), tables=ints([scratch] * 3),
            table_starts=ints([0, 1, 3]), sample_rows=ints([0, 2]), sample_lanes=ints([0, 1]),
        )  # fmt: skip
        self._eager(plan)

    def _bucket(self, plan: StepPlan) -> int | None:
        """The bucket for a plan; None where a real pass is needed.

        Whoever listens to the decoder (pooling, prompt scores) wants its hidden states.
        """
        decoder: Any = None if self._module is None else self._module.base_model
        listened = decoder is not None and bool(decoder._forward_hooks)  # noqa: SLF001
        if listened or self._buckets is None or not self._packer.decodes(plan):
            return None
        return self._buckets.bucket(plan.rows, len(plan.tables))

    def _eager(self, plan: StepPlan) -> Tensor:
        packed = self._packer.pack(plan)
        items = torch.empty(len(packed.items), dtype=torch.int32, device=self._device)
        self._upload.to(items, packed.items)
        rows = views(items, packed.shape)
        return self._run(rows, logits_to_keep=self._sampled(plan)).float()

    def _sampled(self, plan: StepPlan) -> Tensor:
        return upload(plan.sample_rows.astype(np.int64), self._device)

    def _rows_logits(self, rows: Rows) -> Tensor:
        return self._run(rows)

    def _run(self, rows: Rows, **kept: Tensor) -> Tensor:
        """Logits of all rows, or of those to keep."""
        if self._module is None:
            raise RuntimeError("the runner is closed")
        out = self._module(
            input_ids=rows.tokens[None],
            position_ids=rows.positions[None],
            use_cache=False,
            paged=attention.Step(rows, self._blocks, self._kernels),
            **kept,
        )
        logits: Tensor = out.logits[0]
        return logits


def not_captured(module: nn.Module) -> str | None:
    """Why decoding steps of a model cannot be captured: what in it asks the device on the way."""
    config: Any = module.config
    if getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None):
        return "which experts a step needs is known only on the way"
    rotary: Any = getattr(module.base_model, "rotary_emb", None)
    if "dynamic" in str(getattr(rotary, "rope_type", "")):
        return "its position encoding depends on the longest row of a step"
    return None
