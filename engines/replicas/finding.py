"""Who keeps a request: every engine that keeps any is asked, and nobody has a list."""

import asyncio
from collections.abc import Mapping

from engines.api import Engine, Found, Keeper, Kept, RequestId


async def find(engines: Mapping[str, Engine], request_id: RequestId) -> Found | None:
    """The replica that has it; of several, the one with the latest attempt.

    Raises EngineUnavailable where none says so, and one does not answer: it may be there.
    """
    keepers = {name: engine for name, engine in engines.items() if isinstance(engine, Keeper)}
    told = await asyncio.gather(
        *(keeper.find(request_id) for keeper in keepers.values()), return_exceptions=True
    )
    found = [
        Found(name, kept)
        for name, kept in zip(keepers, told, strict=True)
        if isinstance(kept, Kept)
    ]
    if found:
        return max(found, key=lambda each: each.kept.attempt)
    for trouble in told:
        if isinstance(trouble, BaseException):
            raise trouble
    return None
