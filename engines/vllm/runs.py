"""One choice of one request through vLLM, from its first call to its finish."""

from collections.abc import AsyncIterator, Sequence

from engines.api import TokenLogprobs
from engines.errors import RequestFailed
from engines.self_batching.cursor import Cursor, token_logprobs
from engines.self_batching.runs import Run, hear
from engines.self_batching.runs import Told as Hears
from engines.vllm.calls import Calls, Told
from engines.vllm.sampling import Stage, Writer


async def follow(run: Run, writer: Writer, calls: Calls, hears: Hears) -> None:
    """Push all events of a choice. Raises what the engine raises; cancelled, it aborts the call."""
    request, finished = run.box.request, False
    while not finished:
        stage = writer.stage(request, run.choice, run.log)
        async with calls.call(stage, request) as told:
            finished = await _read(run, stage, told, hears)


async def _read(run: Run, stage: Stage, told: AsyncIterator[Told], hears: Hears) -> bool:
    """Read one call to its end; whether the choice has finished with it."""
    cursor = Cursor(run.box.request.sampling, stage, len(run.log))
    async for each in told:
        reading = cursor.read(each.outputs[0], ended=each.finished)
        prompt = _prompt_logprobs(run, each) if reading.tokens and not run.log else None
        hear(run, reading, each.num_cached_tokens or 0, hears, prompt)
        if reading.over:
            return reading.finish is not None
    raise RequestFailed("the engine ended the request without a reason")


def _prompt_logprobs(run: Run, told: Told) -> Sequence[TokenLogprobs] | None:
    """Of each token of the prompt but the first, which vLLM tells as None."""
    most = run.box.request.sampling.prompt_logprobs
    if most is None:
        return None
    prompt, entries = run.box.request.prompt, told.prompt_logprobs
    if entries is None or len(entries) < len(prompt):
        raise RequestFailed("the engine left out log-probabilities of the prompt")
    return [token_logprobs(entries[at], prompt[at], most) for at in range(1, len(prompt))]
