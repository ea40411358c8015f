"""One choice of one request, from its first call to its finish."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from engines.api import TokenEvent
from engines.errors import RequestFailed
from engines.mailbox import Mailbox
from engines.trtllm.admission import Ticket
from engines.trtllm.calls import Calls, Result, cached_tokens
from engines.trtllm.cursor import Cursor, Reading
from engines.trtllm.sampling import Stage, Writer


@dataclass(slots=True, eq=False)
class Run:
    """A choice, and the task that follows it once it was admitted.

    Each choice is a call of its own, with n = 1: siblings then end apart, go on from logs of their
    own, and greedy ones are not refused. The engine would compute them apart as well.
    """

    box: Mailbox
    choice: int
    log: list[int]  # all that the choice has said, the emitted tokens included
    ticket: "Ticket[Run]" = field(init=False)
    task: asyncio.Task[None] | None = field(default=None, init=False)
    cached: int | None = field(default=None, init=False)  # known with the first token
    begun: bool = field(default=False, init=False)  # the engine has told something of it

    def __post_init__(self) -> None:
        request = self.box.request
        self.ticket = Ticket(
            owner=self,
            prompt=len(request.prompt) + len(self.log),
            longest=len(request.prompt) + request.sampling.max_tokens,
            priority=request.priority,
        )


async def follow(run: Run, writer: Writer, calls: Calls, told: Callable[[Run], None]) -> None:
    """Push all events of a choice. Raises what the engine raises; cancelled, it aborts the call.

    `told` is called for each output, before its tokens are pushed.
    """
    request, finished = run.box.request, False
    while not finished:
        stage = writer.stage(request, run.choice, run.log)
        result = calls.begin(stage, request)
        try:
            finished = await _read(run, stage, result, told)
        finally:
            if not result.finished:
                result.abort()


async def _read(run: Run, stage: Stage, result: Result, told: Callable[[Run], None]) -> bool:
    """Read one call to its end; whether the choice has finished with it."""
    cursor = Cursor(run.box.request.sampling, stage, len(run.log))
    async for _ in result:
        reading = cursor.read(result.outputs[0], ended=result.finished)
        if run.cached is None:
            run.cached = min(cached_tokens(result), len(run.box.request.prompt))
        told(run)
        if reading.tokens or reading.finish is not None:
            _push(run, reading, run.cached)
        if reading.over:
            return reading.finish is not None
    raise RequestFailed("the engine ended the request without a reason")


def _push(run: Run, reading: Reading, cached: int) -> None:
    run.log += reading.tokens
    run.box.push(
        TokenEvent(
            choice=run.choice,
            tokens=reading.tokens,
            cached=cached,
            logprobs=reading.logprobs,
            finish=reading.finish,
        )
    )
