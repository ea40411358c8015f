"""Going on with a durable call from its log: at the worker that has it, or anew anywhere."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from engines.api import Found, GenerationRequest, Kept, TokenEvent
from engines.errors import EngineUnavailable, InvalidRequest, RequestUnknown
from engines.replicas import MigratingStream, ReplicaSet, find
from gateway.durable.resumed import ResumedStream
from openai_compat.errors import ApiError, ErrorReply

_FIRST_WORD_S = 0.25  # for a worker to say that it does not have it
_SAYS_WITHIN_S = 1.0  # for a worker that is slow to say what it has
_WAIT_S = 30.0  # for one to be there
_LOOK_S = 0.2
_ATTEMPTS = 1000  # of one owner: more than a stream may move


class LoggedCall:
    """A call of which there is a log; it ends with `failed` where that is how it ended.

    `on_alone` is told where no worker has the rest of it.
    """

    def __init__(
        self,
        log: Sequence[Sequence[TokenEvent]],
        fence: int,
        on_alone: Callable[[], Awaitable[None]],
        failed: ErrorReply | None = None,
    ) -> None:
        self._log = log
        self._fence = fence
        self._on_alone = on_alone
        self._failed = failed
        self._alone = False

    async def attach(
        self, engine: ReplicaSet, requests: tuple[GenerationRequest, ...], *, watch: bool
    ) -> list[ResumedStream]:
        """The streams of its requests, from their first tokens on."""
        if watch:
            raise ValueError("who reads a durable call owns it")

        async def go_on(rest: GenerationRequest) -> MigratingStream:
            return await self._go_on(engine, rest)

        return [
            ResumedStream(request, log, go_on)
            for request, log in zip(requests, self._log, strict=True)
        ]

    async def _go_on(self, engine: ReplicaSet, rest: GenerationRequest) -> MigratingStream:
        """Raises EngineError, and how it has failed.

        A stream of this process may not have noticed yet that it is another's: nobody goes on
        beside it.
        """
        if self._failed is not None:
            raise ApiError(self._failed)
        deadline = time.monotonic() + _WAIT_S
        while True:
            try:
                return await self._opened(engine, rest)
            except (EngineUnavailable, InvalidRequest) as error:
                if not _passes(error) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_LOOK_S)

    async def _opened(self, engine: ReplicaSet, rest: GenerationRequest) -> MigratingStream:
        if (stream := await _attached(engine, rest)) is not None:
            return stream
        if not self._alone:
            await self._on_alone()
            self._alone = True
        context = b"" if rest.kept is None else rest.kept.context
        return engine.generate(replace(rest, kept=Kept(context, self._fence * _ATTEMPTS)))


def _passes(error: EngineUnavailable | InvalidRequest) -> bool:
    """Whether it may be otherwise soon: no worker is there, or the id is open still."""
    return isinstance(error, EngineUnavailable) or error.param == "id"


async def _found(engine: ReplicaSet, rest: GenerationRequest) -> Found | None:
    """Which worker has it. Of one that hangs nobody waits for long: what it may have is fenced."""
    deadline = time.monotonic() + _SAYS_WITHIN_S
    while True:
        with suppress(EngineUnavailable):
            return await find(engine.engines, rest.id)
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_LOOK_S)


async def _attached(engine: ReplicaSet, rest: GenerationRequest) -> MigratingStream | None:
    found = await _found(engine, rest)
    if found is None:
        return None
    try:
        stream = engine.attach(rest, found)
    except RequestUnknown:
        return None
    try:
        await stream.begin(_FIRST_WORD_S)
    except RequestUnknown:
        stream.detach()
        return None
    except BaseException:
        stream.detach()
        raise
    return stream
