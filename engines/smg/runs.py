"""One choice of one request, from its first call to its finish."""

from collections.abc import Callable
from dataclasses import dataclass, field

from engines.api import FinishReason, TokenEvent
from engines.errors import RequestFailed
from engines.mailbox import Mailbox
from engines.smg.answer import Answer
from engines.smg.messages import Phrases
from engines.smg.server import Call, Server
from engines.trtllm.admission import Ticket
from engines.trtllm.cursor import Cursor, Reading
from engines.trtllm.sampling import Stage


@dataclass(slots=True, eq=False)
class Run:
    """A choice, each stage of which is a call of its own, for one sequence.

    Siblings then end apart, and go on from logs of their own.
    """

    box: Mailbox
    choice: int
    log: list[int]  # all that the choice has said, the emitted tokens included
    ticket: "Ticket[Run]" = field(init=False)
    call: Call | None = field(default=None, init=False)  # that is being read
    cached: int | None = field(default=None, init=False)  # known with the first token
    begun: bool = field(default=False, init=False)  # the server has told something of it
    gone: bool = field(default=False, init=False)  # nobody wants more of it

    def __post_init__(self) -> None:
        request = self.box.request
        self.ticket = Ticket(
            owner=self,
            prompt=len(request.prompt) + len(self.log),
            longest=len(request.prompt) + request.sampling.max_tokens,
            priority=request.priority,
        )

    def leave(self) -> None:
        """Want no more of it, wherever it is. Idempotent."""
        self.gone = True
        if self.call is not None:
            self.call.leave()


async def follow(run: Run, phrases: Phrases, server: Server, told: Callable[[Run], None]) -> None:
    """Push all events of a choice; whatever ends it, no call of it stays behind.

    Raises what reading a call raises. `told` is called for each answer that brings something,
    before its tokens are pushed.
    """
    request, finished = run.box.request, False
    while not (finished or run.gone):
        stage = phrases.facts.writer.stage(request, run.choice, run.log)
        run.call = server.begin(phrases, stage, request)
        try:
            finished = await _read(run, stage, run.call, told)
        finally:
            run.call.leave()


async def _read(run: Run, stage: Stage, call: Call, told: Callable[[Run], None]) -> bool:
    """Read one call to its end; whether the choice has finished with it."""
    cursor, over, finished = Cursor(run.box.request.sampling, stage, len(run.log)), False, False
    answer = call.answer
    while await call.read():
        if over and answer.finished:
            continue  # it owes its status alone
        if over:
            return finished  # it goes on behind its end, and is aborted
        if not (answer.token_ids or answer.finished):
            continue
        reading = cursor.read(answer, ended=answer.finished)
        if run.cached is None:
            run.cached = min(answer.cached, len(run.box.request.prompt))
        told(run)
        if reading.tokens or reading.finish is not None:
            _push(run, reading)
        over, finished = reading.over, reading.finish is not None
        if over and not answer.finished and not _ends_here(reading, answer):
            return finished
    if not over:
        raise RequestFailed("the server ended the request without a reason")
    return finished


def _ends_here(reading: Reading, answer: Answer) -> bool:
    """Whether the server knows that a call is over, so that it need not be aborted."""
    finish = reading.finish
    return finish is None or finish.reason is FinishReason.LENGTH or answer.end is not None


def _push(run: Run, reading: Reading) -> None:
    run.log += reading.tokens
    run.box.push(
        TokenEvent(
            choice=run.choice,
            tokens=reading.tokens,
            cached=run.cached or 0,
            logprobs=reading.logprobs,
            finish=reading.finish,
        )
    )
