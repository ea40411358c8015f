"""Wakes those who wait for a place: an event that is forgotten as soon as it has been told."""

import asyncio
import contextlib


class Changes:
    """What has changed is for each waiter to see. Lives on the event loop."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []  # they look again in the order they came

    def tell(self) -> None:
        """Wake all who wait now."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, within_s: float) -> None:
        """Return at the next change, or when the time is over."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await waiter
        finally:
            self._waiters.remove(waiter)
