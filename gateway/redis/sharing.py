"""What one process has of Redis: the link, and its own place in the registry.

The only module of this package that others need to import, where Redis is asked for at all.
"""

import asyncio
from collections.abc import Callable

from gateway import __version__
from gateway.redis.link import RedisLink
from gateway.redis.registry import Facts, Lease, Registry, Role
from gateway.setting_kinds import Secret


class Sharing:
    """Made with the process, started on its loop. Every method works with Redis down."""

    def __init__(self, url: Secret, role: Role) -> None:
        self.link = RedisLink(url)
        self._role = role
        self.lease: Lease | None = None
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for Redis; waits for nothing."""
        self.link.start()

    def enter(self, address: str, model: str) -> None:
        """Be registered from now on, under an address."""
        registry = Registry(self.link, self._role)
        self.lease = Lease(registry, address, Facts(address, model, __version__))
        self._keeping = asyncio.create_task(self.lease.keep())

    def drain(self) -> None:
        """Tell the others that this process takes no new work."""
        if self.lease is not None:
            self.lease.drain()

    async def stop(self) -> None:
        """Leave, and close the link. Idempotent."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        if self.lease is not None:
            lease, self.lease = self.lease, None
            await lease.leave()
        await self.link.close()

    def workers(self) -> Registry:
        """The registry of workers."""
        return Registry(self.link, Role.WORKER)


def advertised(told: str | None, bound: str, say: Callable[[str], None]) -> str | None:
    """The address to register: as told, else as bound, unless that names no host."""
    if told is not None:
        return told
    host = bound.rpartition(":")[0].strip("[]")
    if host in ("0.0.0.0", "::", "*"):  # noqa: S104 - refused here
        say(f"not registered in Redis: {bound} is no address to reach it by; give --advertise")
        return None
    return bound
