"""One choice of one request through TensorRT-LLM, from its first call to its finish."""

import asyncio
import contextlib
from collections.abc import Mapping

from engines.errors import RequestFailed
from engines.self_batching.cursor import Cursor
from engines.self_batching.runs import Run, Told, hear
from engines.trtllm.calls import Calls, Result, cached_tokens
from engines.trtllm.disaggregated import DISAGGREGATED, write_phase
from engines.trtllm.sampling import Stage, Writer
from engines.trtllm.special import Specials


async def follow(run: Run, writer: Writer, calls: Calls, told: Told) -> None:
    """Push all events of a choice. Raises what the engine raises; cancelled, it aborts the call."""
    request, finished = run.box.request, False
    while not finished:
        stage = writer.stage(request, run.choice, run.log)
        result = calls.begin(stage, request)
        try:
            finished = await _read(run, stage, result, told, writer.specials)
        except asyncio.CancelledError:
            if stage.special.fetches and not run.begun:
                await _fetched(result)
            raise
        finally:
            if not result.finished:
                result.abort()


async def _read(run: Run, stage: Stage, result: Result, told: Told, specials: Specials) -> bool:
    """Read one call to its end; whether the choice has finished with it."""
    cursor = Cursor(run.box.request.sampling, stage, len(run.log))
    async for _ in result:
        reading = cursor.read(result.outputs[0], ended=result.finished)
        extras = None
        if stage.special.hands_on and reading.finish is not None:
            extras = await _handed_on(result, specials)
        hear(run, reading, cached_tokens(result), told, extras=extras)
        if reading.over:
            return reading.finish is not None
    raise RequestFailed("the engine ended the request without a reason")


async def _handed_on(result: Result, specials: Specials) -> Mapping[str, str]:
    """Where the generation phase finds what this context phase has computed; told at its end."""
    async for _ in result:
        pass
    told = result.outputs[0].disaggregated_params
    if told is None:
        raise RequestFailed("the engine has computed the context and does not say where it is")
    return {DISAGGREGATED: write_phase(told, specials.phases)}


async def _fetched(result: Result) -> None:
    """Wait for the first output: to abort while a KV cache is being fetched is not safe there."""
    with contextlib.suppress(StopAsyncIteration):
        await anext(aiter(result))
