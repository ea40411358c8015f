"""A decoder whose other parts are computed by other processes: all take the same steps."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from engines.errors import EngineDied
from engines.step import BlockBytes, StepPlan
from engines.torch.decoders import Decoder
from engines.torch.parallel.frames import encoded


class Others(Protocol):
    """Who computes the other parts."""

    def send(self, frame: bytes) -> None:
        """Tell all of a step. Raises OSError where one has ended."""

    def ended(self) -> str | None:
        """Which of them has ended, in words."""

    def close(self) -> None:
        """End them. Idempotent."""


class DividedDecoder:
    """As `own`, which is the decoder of part 0. Raises EngineDied when another part's has ended."""

    def __init__(self, own: Decoder, others: Others) -> None:
        self._own = own
        self._others = others
        self._closed = False

    @property
    def block_bytes(self) -> int:
        """Of this part."""
        return self._own.block_bytes

    def save(self, blocks: Sequence[int]) -> list[BlockBytes]:
        if blocks:
            raise ValueError("blocks of a divided model are not saved")
        return []

    def logits(self, plan: StepPlan) -> Tensor:
        if self._closed:
            raise RuntimeError("the runner is closed")
        frame = encoded(plan)
        try:
            self._others.send(frame)
            return self._own.logits(plan)
        except Exception as error:
            # The others wait in a sum that will not come: nothing goes on after this.
            ended = self._others.ended()
            self.close()
            if ended is None:
                raise
            raise EngineDied(ended) from error

    def close(self) -> None:
        self._closed = True
        self._own.close()
        self._others.close()
