"""Who keeps a request: every engine that keeps any is asked, and nobody has a list."""

import asyncio
from collections.abc import Mapping

from engines.api import Engine, Found, Keeper, RequestId


async def find(engines: Mapping[str, Engine], request_id: RequestId) -> Found | None:
    """The replica that has it; of several, the one with the latest attempt."""
    keepers = {name: engine for name, engine in engines.items() if isinstance(engine, Keeper)}
    told = await asyncio.gather(*(keeper.find(request_id) for keeper in keepers.values()))
    found = [
        Found(name, kept) for name, kept in zip(keepers, told, strict=True) if kept is not None
    ]
    return max(found, key=lambda each: each.kept.attempt, default=None)
