"""Many who look for the same thing at once: one looks, all hear what was found."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Lookups(Generic[K, T]):
    """What is under way: where hundreds ask for one call, its workers are asked once."""

    def __init__(self, look: Callable[[K], Awaitable[T]]) -> None:
        self._look = look
        self._under_way: dict[K, asyncio.Task[T]] = {}

    async def find(self, key: K) -> T:
        """What is found, or the error of who looked. Who leaves ends it for nobody else."""
        task = self._under_way.get(key)
        if task is None:
            self._under_way[key] = task = asyncio.create_task(self._found(key))
            task.add_done_callback(_heard)
        return await asyncio.shield(task)

    async def _found(self, key: K) -> T:
        try:
            return await self._look(key)
        finally:
            del self._under_way[key]


def _heard(task: "asyncio.Task[T]") -> None:
    """Also where everybody has left meanwhile."""
    if not task.cancelled():
        task.exception()
