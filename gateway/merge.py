"""The events of several token streams as one, in whatever order they come."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from engines.api import TokenEvent, TokenStream

Batch = list[tuple[int, TokenEvent]]  # (which stream, event), all that is known by now

# Events taken in advance of a slow reader; beyond it the engine's mailboxes merge them.
_AHEAD = 64


async def merged(streams: Sequence[TokenStream]) -> AsyncGenerator[Batch, None]:
    """Yield events as they come until every stream has ended.

    Raises what a stream raises, after the events that came before it.

    One stream is read directly: a mailbox merges what its reader has not taken, so there is
    nothing to gather. Close the generator to stop; the streams stay the caller's to close.
    """
    if len(streams) == 1:
        async for event in streams[0]:
            yield [(0, event)]
        return
    async with aclosing(_gathered(streams)) as batches:
        async for batch in batches:
            yield batch


_Item = tuple[int, TokenEvent] | BaseException | None  # None: a stream ended


async def _gathered(streams: Sequence[TokenStream]) -> AsyncGenerator[Batch, None]:
    queue: asyncio.Queue[_Item] = asyncio.Queue(_AHEAD)
    pumps = [asyncio.create_task(_pump(i, stream, queue)) for i, stream in enumerate(streams)]
    try:
        open_streams = len(pumps)
        while open_streams:
            batch, ended, failure = _sorted_out(await _taken(queue))
            open_streams -= ended
            if batch:
                yield batch
            if failure is not None:
                raise failure
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(index: int, stream: TokenStream, queue: asyncio.Queue[_Item]) -> None:
    try:
        async for event in stream:
            await queue.put((index, event))
    except Exception as error:  # noqa: BLE001 - carried to the reader, who raises it
        await queue.put(error)
    else:
        await queue.put(None)


async def _taken(queue: asyncio.Queue[_Item]) -> list[_Item]:
    items = [await queue.get()]
    while not queue.empty():
        items.append(queue.get_nowait())
    return items


def _sorted_out(items: list[_Item]) -> tuple[Batch, int, BaseException | None]:
    """The events up to the first failure, how many streams ended by then, and that failure."""
    batch: Batch = []
    ended = 0
    for item in items:
        if isinstance(item, BaseException):
            return batch, ended, item
        if item is None:
            ended += 1
        else:
            batch.append(item)
    return batch, ended, None
