"""One request's events on their way from an engine to its reader; they merge when it lags.

At most one pending event per choice, however slow the reader: memory is bounded by the tokens
themselves, and no other stream waits. Lives on the event loop; the engine thread never touches it.
"""

import asyncio
from collections.abc import Callable

from engines.api import GenerationRequest, TokenEvent

Abort = Callable[[GenerationRequest, int | None], None]  # (request, choice; None for all)


class Mailbox:
    """The TokenStream of a stepped engine. One reader at a time."""

    def __init__(self, request: GenerationRequest, abort: Abort) -> None:
        self.request = request
        self.grammar: object = None  # held while the request may start a sequence of it
        self._abort = abort
        self._pending: dict[int, TokenEvent] = {}
        self._unfinished = set(request.choices)  # choices that may still get events
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._closed = False

    def push(self, event: TokenEvent) -> None:
        """Add the newest tokens of a choice."""
        if event.choice not in self._unfinished:
            return  # crossed an end_choice on its way
        if event.finish is not None:
            self._unfinished.discard(event.choice)
        before = self._pending.get(event.choice)
        if before is None:
            self._pending[event.choice] = event
        else:
            before.merge(event)
        self._wake()

    def fail(self, error: Exception) -> None:
        """End the stream with an error, after what is pending has been read."""
        if self._unfinished:
            self._error = error
            self._unfinished.clear()
            self._wake()

    @property
    def done(self) -> bool:
        """Whether the engine owes nothing more."""
        return not self._unfinished

    @property
    def ended(self) -> set[int]:
        """The choices that may get no more events."""
        return set(range(self.request.n)) - self._unfinished

    def __aiter__(self) -> "Mailbox":
        return self

    async def __anext__(self) -> TokenEvent:
        while not self._pending:
            if self._error is not None:
                error, self._error, self._closed = self._error, None, True
                raise error
            if self._closed or not self._unfinished:
                raise StopAsyncIteration
            await self._wait()
        return self._pending.pop(next(iter(self._pending)))

    def end_choice(self, choice: int) -> None:
        self._pending.pop(choice, None)
        if choice in self._unfinished:
            self._unfinished.discard(choice)
            self._abort(self.request, choice)
            self._wake()

    async def aclose(self) -> None:
        self._closed, self._error = True, None
        self._pending.clear()
        if self._unfinished:
            self._unfinished.clear()
            self._abort(self.request, None)
            self._wake()

    async def _wait(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
