"""What most need of a link to Redis: its functions (gateway/redis/functions/) called by name."""

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from gateway.redis.link import Purpose, Word


class Functions(Protocol):
    """Calls functions."""

    def call(
        self,
        function: str,
        keys: Sequence[str],
        args: Sequence[Word],
        *,
        purpose: Purpose,
        hurried: bool = False,
    ) -> Awaitable[Any]:
        """An answer in time, or RedisUnusable."""
