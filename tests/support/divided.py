"""Divided models in tests: parts in threads of one process, and what a process of them runs."""

import threading
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue

import torch

from engines.torch.cuda.decoder import CudaDecoder, Sizes
from engines.torch.cuda.plain import PlainKernels
from engines.torch.loading import open_model
from engines.torch.paged import PagedDecoder
from engines.torch.parallel.decoder import DividedDecoder
from engines.torch.parallel.frames import read_plan
from engines.torch.parallel.sharding import Share, divide, join

_PATIENCE_S = 30


class Sums:
    """Adds up what the threads of all parts bring, as their process group would."""

    def __init__(self, ranks: int) -> None:
        self._barrier = threading.Barrier(ranks)
        self._parts: list[torch.Tensor | None] = [None] * ranks

    def of(self, rank: int):
        """What part `rank` sums by."""

        def total(out: torch.Tensor) -> None:
            self._parts[rank] = out.clone()
            self._barrier.wait(_PATIENCE_S)
            whole = torch.stack(self._parts).sum(0)
            self._barrier.wait(_PATIENCE_S)
            out.copy_(whole)

        return total


class Threads:
    """The other parts of a model in threads, behind the frames that processes get."""

    def __init__(self, decoders) -> None:
        self._queues = [SimpleQueue() for _ in decoders]
        self._threads = [
            threading.Thread(target=_serve, args=pair, daemon=True)
            for pair in zip(decoders, self._queues, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, frame: bytes) -> None:
        for plans in self._queues:
            plans.put(read_plan(BytesIO(frame)))

    def ended(self) -> str | None:
        return None

    def close(self) -> None:
        for plans, thread in zip(self._queues, self._threads, strict=True):
            plans.put(None)
            thread.join(_PATIENCE_S)


def _serve(decoder, plans) -> None:
    while (plan := plans.get()) is not None:
        with torch.inference_mode():
            decoder.logits(plan)


def part_in_thread(path: Path, share: Share, sums: Sums, *, dtype: str = "float32"):
    """One part of a model, which sums with the other threads."""
    loaded = open_model(path, dtype=dtype, device="cpu", cut=lambda m, f: divide(m, f, share))
    join(loaded.module, sums.of(share.rank))
    return loaded


def paged(loaded, *, num_blocks: int, block_size: int, max_rows: int):
    """The reference decoder."""
    return PagedDecoder(loaded, num_blocks=num_blocks, block_size=block_size)


def plain_cuda(loaded, *, num_blocks: int, block_size: int, max_rows: int):
    """The decoder for CUDA as a part has it: without graphs; on a CPU, by plain kernels."""
    return CudaDecoder(loaded, Sizes(num_blocks, block_size, max_rows), PlainKernels(), graphs=None)


def over_threads(parts, opens=paged, **sizes):
    """The decoder of a model whose parts are loaded here."""
    own, *others = (opens(each, **sizes) for each in parts)
    return DividedDecoder(own, Threads(others))


def is_there(pid: int) -> bool:
    """Whether a process runs. One that has ended is not there, though nobody has asked for it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
