"""A second reader of a kept request: it reads beside the first, and follows it to other replicas.

It decides nothing. Where its replica dies, the first reader moves the request, and this one looks
for it again, for as long as that one may look for a place.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from engines.api import (
    Engine,
    Found,
    GenerationRequest,
    Keeper,
    RequestId,
    TokenEvent,
    TokenStream,
)
from engines.errors import EngineDied, EngineError, EngineUnavailable, RequestUnknown
from engines.replicas.finding import find
from engines.replicas.progress import Lied, Progress

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0  # between two looks; hundreds may watch one request


class Places(Protocol):
    """Where a request may be."""

    stopped: bool

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The replicas by name."""


class WatchingStream:
    """A TokenStream beside another one. One reader at a time."""

    def __init__(
        self,
        request: GenerationRequest,
        places: Places,
        vocab_size: int,
        *,
        within_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._request = request
        self._places = places
        self._within_s = within_s
        self._clock = clock
        self._progress = Progress(request, vocab_size)
        self._inner: TokenStream | None = None
        self._keeper: Keeper | None = None  # whose stream that is
        self._until: float | None = None  # it looks for the request; None: it is told
        self._pause_s = _FIRST_PAUSE_S
        self._joined = False
        self._due: list[TokenEvent] = []

    def attach(self, found: Found) -> None:
        """Read where it was found, behind what is known. Raises what `Keeper.attach` raises."""
        keeper = self._places.engines.get(found.replica)
        if keeper is None or not isinstance(keeper, Keeper):
            raise RequestUnknown("the worker that has kept that request has gone")
        try:
            self._due += self._progress.recall(found.kept.told)
        except Lied:
            raise RequestUnknown("what was kept of that request cannot be") from None
        rest = replace(self._progress.rest(), kept=found.kept)
        self._inner, self._keeper = keeper.attach(rest, watch=True), keeper

    async def begin(self, within_s: float) -> None:
        """Have the first event at hand, if it comes soon. Raises what reading it raises."""
        with contextlib.suppress(TimeoutError, StopAsyncIteration):
            async with asyncio.timeout(within_s):
                self._due.insert(0, await anext(self))

    def detach(self) -> None:
        """Read no more."""
        self._due.clear()
        self._progress.close()
        self._leave()

    def __aiter__(self) -> "WatchingStream":
        return self

    async def __anext__(self) -> TokenEvent:
        while not self._due and self._progress.open:
            if self._inner is None:
                await self._look()
            elif (event := await self._told(self._inner)) is not None:
                return event
        if not self._due:
            raise StopAsyncIteration
        return self._due.pop(0)

    def end_choice(self, choice: int) -> None:
        """No more of a choice here; who reads all of it is not disturbed."""
        self._due = [event for event in self._due if event.choice != choice]
        self._progress.waive(choice)
        if not self._progress.open:
            self._leave()

    async def aclose(self) -> None:
        self.detach()

    def _leave(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None and self._keeper is not None:
            self._keeper.detach(inner)

    async def _told(self, inner: TokenStream) -> TokenEvent | None:
        """What the replica tells next; None where it has no more to tell, or what counts not."""
        try:
            event = self._progress.take(await anext(inner))
        except (StopAsyncIteration, Lied, EngineDied):
            self._lose()
            return None
        except EngineUnavailable:
            if not self._joined:
                raise  # others watch it, too many of them; the request itself is well
            self._lose()
            return None
        except RequestUnknown:
            if self._until is None:
                raise
            self._lose()  # it is not there yet, or not as far as it was told here
            return None
        self._until, self._pause_s, self._joined = None, _FIRST_PAUSE_S, True
        if not self._progress.open:
            self._leave()
        return event

    def _lose(self) -> None:
        self._leave()
        if self._until is None:
            self._until = self._clock() + self._within_s

    async def _look(self) -> None:
        """Find the request again, where it was moved to. Raises EngineDied when it is too late."""
        self._due += self._progress.ends()
        if self._due or not self._progress.open:
            return
        if self._places.stopped:
            raise EngineUnavailable("the engine is stopping")
        if self._clock() > (self._until or 0):
            raise EngineDied("the engine failed, and nobody went on with the request")
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        with contextlib.suppress(EngineError):
            found = await find(self._places.engines, RequestId(self._request.id))
            if found is not None:
                self.attach(found)
