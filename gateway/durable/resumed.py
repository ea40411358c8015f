"""A stream that begins with what the log has, and goes on wherever the rest can be had."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from engines.api import GenerationRequest, TokenEvent, TokenStream
from engines.replicas import MigratingStream

Open = Callable[[GenerationRequest], Awaitable[MigratingStream]]


class ResumedStream:
    """Implements `TokenStream`. The rest is opened when the log has been read.

    What to ask for depends on that: a stop string in the log ends a choice.
    """

    def __init__(self, request: GenerationRequest, log: Sequence[TokenEvent], go_on: Open) -> None:
        self._request = request
        self._log = list(log)
        self._go_on = go_on
        self._emitted: dict[int, list[int]] = {choice: [] for choice in range(request.n)}
        self._inner: TokenStream | None = None
        self._closed = False

    def __aiter__(self) -> "ResumedStream":
        return self

    async def __anext__(self) -> TokenEvent:
        if self._log:
            return self._logged(self._log.pop(0))
        if self._inner is None:
            if not self._emitted or self._closed:
                raise StopAsyncIteration
            self._inner = await self._go_on(self._rest())
        return await anext(self._inner)

    def end_choice(self, choice: int) -> None:
        self._emitted.pop(choice, None)
        if self._inner is not None:
            self._inner.end_choice(choice)

    async def aclose(self) -> None:
        self._closed = True
        self._log.clear()
        if self._inner is not None:
            await self._inner.aclose()

    def detach(self) -> None:
        """Read no more; what is kept goes on for a while."""
        self._closed = True
        self._log.clear()
        if isinstance(self._inner, MigratingStream):
            self._inner.detach()

    def _logged(self, event: TokenEvent) -> TokenEvent:
        emitted = self._emitted.get(event.choice)
        if emitted is not None:
            emitted += event.tokens
            if event.finish is not None:
                del self._emitted[event.choice]
        return event

    def _rest(self) -> GenerationRequest:
        logs = [self._emitted.get(choice) for choice in range(self._request.n)]
        if not any(logs) and None not in logs:
            return self._request
        emitted = tuple(None if log is None else tuple(log) for log in logs)
        return replace(self._request, emitted=emitted)
