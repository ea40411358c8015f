"""One choice of one request through an SMG server, from its first call to its finish."""

from engines.api import FinishReason
from engines.errors import RequestFailed
from engines.self_batching.cursor import Cursor, Reading
from engines.self_batching.runs import Run, Told, hear
from engines.smg.answer import Answer
from engines.smg.messages import Phrases
from engines.smg.server import Call, Server
from engines.trtllm.sampling import Stage


async def follow(run: Run, phrases: Phrases, server: Server, told: Told) -> None:
    """Push all events of a choice; whatever ends it, no call of it stays behind.

    Raises what reading a call raises. `told` is called for each answer that brings something,
    before its tokens are pushed. The way out of it is that of its call: a read that is cancelled
    would cancel the stream before it was aborted.
    """
    request, finished = run.box.request, False
    while not (finished or run.gone):
        stage = phrases.facts.writer.stage(request, run.choice, run.log)
        call = server.begin(phrases, stage, request)
        run.way_out = call.leave
        try:
            finished = await _read(run, stage, call, told)
        finally:
            call.leave()


async def _read(run: Run, stage: Stage, call: Call, told: Told) -> bool:
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
        hear(run, reading, answer.cached, told)
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
