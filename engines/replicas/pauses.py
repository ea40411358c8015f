"""Whether this process itself stood still: what it missed then says nothing about anybody else.

A gateway that was stopped, swapped out or moved answers nobody. Workers give such a session up, so
to the one that wakes all of them seem dead at once, whatever they were computing.
"""

import asyncio
from collections.abc import Callable

_LOOK_S = 0.5
_LATE_S = 2.5  # workers give up who has not answered them for 3 s (wire/channels.py)
_AFTERMATH_S = 10.0  # within which sessions that broke meanwhile are found so


class Pauses:
    """Knows of pauses while somebody awaits `watch`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ended: float | None = None  # when the last one did

    @property
    def lately(self) -> bool:
        """Whether one ended so lately that deaths which are found now may come of it."""
        return self._ended is not None and self._clock() - self._ended < _AFTERMATH_S

    async def watch(self) -> None:
        """Look at the clock, for ever."""
        while True:
            before = self._clock()
            await asyncio.sleep(_LOOK_S)
            now = self._clock()
            if now - before > _LOOK_S + _LATE_S:
                self._ended = now
