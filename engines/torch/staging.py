"""Host memory that a device copies from and to by itself, while the host goes on.

A copy out of pinned memory returns at once, and so its memory must stay as it is until the device
has read it: every slot has an event that says so, waited for when its turn comes again. On the CPU
a copy is a copy.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from engines.step import Int32Array

_SLOTS = 2  # one that is read, one that is written


@dataclass(slots=True)
class _Slot:
    memory: Tensor  # int32, pinned on CUDA
    read: torch.cuda.Event | None = None


@dataclass(slots=True)
class Upload:
    """Takes arrays of int32 to the device in turns."""

    device: torch.device
    _slots: list[_Slot] = field(default_factory=list)
    _turn: int = 0

    def to(self, target: Tensor, items: Int32Array) -> None:
        """Enqueue a copy of items into the first of target; items may be overwritten then."""
        if self.device.type != "cuda":
            target[: len(items)] = torch.from_numpy(items)
            return
        slot = self._slot(len(items))
        slot.memory.numpy()[: len(items)] = items
        target[: len(items)].copy_(slot.memory[: len(items)], non_blocking=True)
        slot.read = torch.cuda.Event()  # type: ignore[no-untyped-call]
        slot.read.record()

    def _slot(self, size: int) -> _Slot:
        self._turn = (self._turn + 1) % _SLOTS
        if len(self._slots) <= self._turn:
            self._slots.append(_Slot(self._pinned(size)))
        slot = self._slots[self._turn]
        if slot.read is not None:
            slot.read.synchronize()
        if len(slot.memory) < size:
            slot.memory = self._pinned(2 * size)
        return slot

    def _pinned(self, size: int) -> Tensor:
        return torch.empty(max(size, 1 << 14), dtype=torch.int32, pin_memory=True)


def upload(values: np.ndarray, device: torch.device) -> Tensor:
    """A copy on the device; on CUDA enqueued, from pinned memory that torch keeps until then."""
    here = torch.from_numpy(values)
    if device.type != "cuda":
        return here
    return here.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Arriving:
    """Tensors on their way to the host."""

    copies: tuple[Tensor, ...]
    there: torch.cuda.Event | None  # None: they are

    def wait(self) -> tuple[Tensor, ...]:
        """The tensors, when they have arrived."""
        if self.there is not None:
            self.there.synchronize()
        return self.copies


def download(*tensors: Tensor) -> Arriving:
    """Enqueue copies to the host, into pinned memory."""
    if not tensors or not tensors[0].is_cuda:
        return Arriving(tensors, None)
    copies = tuple(
        torch.empty(found.shape, dtype=found.dtype, pin_memory=True).copy_(found, non_blocking=True)
        for found in tensors
    )
    there = torch.cuda.Event()  # type: ignore[no-untyped-call]
    there.record()
    return Arriving(copies, there)
