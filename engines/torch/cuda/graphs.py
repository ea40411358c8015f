"""Decoding steps captured as CUDA graphs, one for each bucket of rows, over fixed memory.

A graph replays kernels on the addresses it was captured with. So the inputs of every bucket are
views of one buffer, written before a replay, and its logits end in another, read after it. All
graphs share one pool: the largest is captured first, and the others fit into its memory.
"""

import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from engines.torch.cuda.packing import Packed, Shape, views
from engines.torch.cuda.port import Rows
from engines.torch.staging import Upload

_log = logging.getLogger(__name__)
_WARMUPS = 2  # kernels are compiled, and cuBLAS takes its workspace, before anything is captured

Forward = Callable[[Rows], Tensor]  # logits of all rows


class Graphs(StrEnum):
    """When decoding steps are captured."""

    START = "start"
    LAZY = "lazy"  # when a bucket is first needed
    OFF = "never"  # the same computation over the same memory, launched kernel by kernel


class Buckets:
    """Decoding steps of fixed numbers of rows; `entries` is the most that tables may hold."""

    def __init__(
        self, forward: Forward, sizes: Sequence[int], *, vocab: int, entries: int,
        device: torch.device, graphs: Graphs,
    ) -> None:  # fmt: skip
        self._forward = forward
        self._sizes = tuple(sizes)
        self._entries = entries
        self._device = device
        self._mode = graphs if device.type == "cuda" else Graphs.OFF
        most = self._sizes[-1]
        self._items = torch.zeros(_shape(most).head + entries, dtype=torch.int32, device=device)
        self._logits = torch.empty(most, vocab, dtype=torch.float32, device=device)
        self._upload = Upload(device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None  # what torch calls a handle

    def bucket(self, rows: int, entries: int) -> int | None:
        """The bucket that takes a step of so many rows and table entries, if one does."""
        if entries >= self._entries:  # the first one is taken
            return None
        return next((size for size in self._sizes if size >= rows), None)

    def run(self, packed: Packed) -> Tensor:
        """Float32 logits [bucket, vocab], which the next run overwrites."""
        size = packed.shape.rows
        if packed.shape != _shape(size):
            raise ValueError(f"{packed.shape} is not a bucket")
        self._upload.to(self._items, packed.items)
        if self._mode is not Graphs.OFF and size not in self._graphs:
            self._capture(size)
        graph = self._graphs.get(size)
        if graph is None:
            return self._compute(size)
        graph.replay()
        return self._logits[:size]

    def capture_all(self, scratch_block: int, scratch_slot: int) -> None:
        """Capture every bucket that is to be there at start, over steps of padding alone."""
        if self._mode is not Graphs.START:
            return
        for size in reversed(self._sizes):
            self._pad(size, scratch_block, scratch_slot)
            self._capture(size)

    def _pad(self, size: int, block: int, slot: int) -> None:
        shape = _shape(size)
        self._items.zero_()
        rows = views(self._items, shape)
        rows.slots.fill_(slot)
        rows.single.rows.copy_(torch.arange(size, dtype=torch.int32))
        rows.single.counts.fill_(1)
        rows.tables[:1] = block

    def _compute(self, size: int) -> Tensor:
        out = self._logits[:size]
        out.copy_(self._forward(views(self._items, _shape(size))))
        return out

    def _capture(self, size: int) -> None:
        """Rows of the step at hand are computed on the way: writing them twice changes nothing."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARMUPS):
                self._compute(size)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                self._compute(size)
        except RuntimeError:
            # What synchronises inside cannot be captured. Slower is better than not at all.
            _log.exception("decoding steps of %d rows cannot be captured: no graphs", size)
            self._mode = Graphs.OFF
            return
        self._graphs[size] = graph


def _shape(size: int) -> Shape:
    return Shape(rows=size, single=size, ragged=0)
