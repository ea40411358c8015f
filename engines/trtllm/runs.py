"""One choice of one request through TensorRT-LLM, from its first call to its finish."""

from engines.errors import RequestFailed
from engines.self_batching.cursor import Cursor
from engines.self_batching.runs import Run, Told, hear
from engines.trtllm.calls import Calls, Result, cached_tokens
from engines.trtllm.sampling import Stage, Writer


async def follow(run: Run, writer: Writer, calls: Calls, told: Told) -> None:
    """Push all events of a choice. Raises what the engine raises; cancelled, it aborts the call."""
    request, finished = run.box.request, False
    while not finished:
        stage = writer.stage(request, run.choice, run.log)
        result = calls.begin(stage, request)
        try:
            finished = await _read(run, stage, result, told)
        finally:
            if not result.finished:
                result.abort()


async def _read(run: Run, stage: Stage, result: Result, told: Told) -> bool:
    """Read one call to its end; whether the choice has finished with it."""
    cursor = Cursor(run.box.request.sampling, stage, len(run.log))
    async for _ in result:
        reading = cursor.read(result.outputs[0], ended=result.finished)
        hear(run, reading, cached_tokens(result), told)
        if reading.over:
            return reading.finish is not None
    raise RequestFailed("the engine ended the request without a reason")
