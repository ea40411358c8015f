"""The store of responses of one gateway, over a real Redis."""

import asyncio
import time
from contextlib import asynccontextmanager

from gateway.redis.link import RedisLink
from gateway.redis.response_index import ResponseIndex
from gateway.redis.responses import SharedResponseStore
from gateway.responses.store import MemoryResponseStore
from gateway.setting_kinds import Secret


@asynccontextmanager
async def shared_store(url, *, link=None, max_bytes=20_000, ttl_s=100.0, max_responses=100):
    """As bootstrap makes it."""
    link = link or RedisLink(Secret(url))
    link.start()
    bounds = {"max_bytes": max_bytes, "ttl_s": ttl_s, "max_responses": max_responses}
    index = ResponseIndex(link, **bounds)
    local = MemoryResponseStore(**bounds, clock=time.monotonic)
    store = SharedResponseStore(link, local, index, ttl_s=ttl_s)
    try:
        async with asyncio.timeout(10):
            await link.came_up()
        yield store
    finally:
        await store.close()
        await link.close()


async def comes(condition, within_s=10):
    """Wait until an awaited condition holds."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.01)
