"""Vectors beside tokens: a runner of a chat model whose hidden states are pooled on the way.

The logits of a step come from its final hidden states, so those need not be computed again: a hook
keeps what the decoder below the head returned, and the lanes that want a vector take their rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engines.step import BlockBytes, StepPlan, StepResult
from engines.torch.loading import LoadedModel
from engines.torch.runner import TorchRunner
from engines.torch.vectors import Pooler, Vectors

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True, slots=True)
class _Ticket:
    inner: object
    vectors: Vectors


class PoolingRunner:
    """A StepRunner that adds vectors to what another runner over the same module gives."""

    def __init__(self, inner: TorchRunner, loaded: LoadedModel) -> None:
        self._inner = inner
        self._pooler = Pooler(loaded.head)
        self._hidden: Tensor | None = None
        self._decoder: nn.Module = loaded.module.base_model  # type: ignore[assignment]
        self._hook: RemovableHandle | None = None  # while anybody wants a vector

    @property
    def block_bytes(self) -> int:
        return self._inner.block_bytes

    def read_blocks(self, blocks: Sequence[int]) -> list[BlockBytes]:
        return self._inner.read_blocks(blocks)

    def launch(self, plan: StepPlan) -> _Ticket:
        for start in plan.starts:
            self._pooler.start(start)
        self._listen()
        inner = self._inner.launch(plan)
        hidden, self._hidden = self._hidden, None
        if self._hook is None:
            return _Ticket(inner, Vectors())
        if hidden is None:
            raise RuntimeError("the runner below did not run the decoder")
        with torch.inference_mode():
            return _Ticket(inner, self._pooler.feed(plan, hidden))

    def collect(self, ticket: object) -> StepResult:
        if not isinstance(ticket, _Ticket):
            raise TypeError(f"not a ticket of this runner: {type(ticket).__name__}")
        result = self._inner.collect(ticket.inner)
        vectors, failed = ticket.vectors.read()
        if not vectors and not failed:
            return result
        return replace(result, vectors=vectors, failed=_both(result.failed, failed))

    def close(self) -> None:
        self._unhook()
        self._inner.close()

    def _listen(self) -> None:
        """A step whose hidden states somebody wants cannot be replayed from a graph."""
        if self._pooler.idle:
            self._unhook()
        elif self._hook is None:
            self._hook = self._decoder.register_forward_hook(self._keep)

    def _unhook(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()

    def _keep(self, _module: nn.Module, _inputs: Any, out: Any) -> None:
        self._hidden = out.last_hidden_state[0]


def _both(some: Mapping[int, str], more: Mapping[int, str]) -> Mapping[int, str]:
    return {**some, **more}
