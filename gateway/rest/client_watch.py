"""Notices that the client has gone, while something else runs for it."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive


class ClientGone(Exception):  # noqa: N818 - a fact, nobody's error
    """The client closed its connection."""


class ClientWatch:
    """`async with` block that is cancelled when the client disconnects, and raises ClientGone then.

    Same mechanism as asyncio.timeout: the cancellation is told from an outer one by the task's
    cancel count, so a server that shuts down is not mistaken for a client that left.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "runs inside a request's task"  # noqa: S101
        self._task = task
        self._outer_cancels = task.cancelling()
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watcher.cancel()
        if not self._gone:
            return
        only_ours = self._task.uncancel() <= self._outer_cancels
        if only_ours and kind is asyncio.CancelledError:
            raise ClientGone from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
