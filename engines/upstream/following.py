"""One stream from its first event to its end: every event of a choice, and exactly one finish."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from engines.api import TokenEvent
from engines.errors import EngineDied
from engines.upstream.reading import DONE, Cursor, Nonsense

_TAIL_S = 2.0  # how long a finish may wait for the usage behind it


async def follow(
    events: AsyncGenerator[bytes], cursor: Cursor, push: Callable[[TokenEvent], None]
) -> None:
    """Push what a choice says; its last event comes when the usage has told what was cached.

    Closes `events`. Raises EngineError where the choice did not end: a stream that breaks behind
    the end of its choice has said all there was to say.
    """
    last: TokenEvent | None = None
    try:
        async with asyncio.timeout(None) as patience, aclosing(events):
            async for data in events:
                if data == DONE:
                    if last is None:
                        break
                    continue  # to the end of the response, so that its connection is used again
                event = cursor.read(data)
                if event is not None and event.finish is not None:
                    last = event
                    patience.reschedule(asyncio.get_running_loop().time() + _TAIL_S)
                elif event is not None:
                    push(event)
                if cursor.alone:
                    break
    except (EngineDied, TimeoutError) as error:
        if last is None or isinstance(error, Nonsense):
            raise
    if last is None:
        raise EngineDied("the upstream's stream ended before the choice did")
    last.cached = cursor.cached
    push(last)
