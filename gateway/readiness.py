"""What stands between a loaded engine and a ready one: a first token, and a settled memory."""

import gc

from engines.api import Engine, GenerationRequest, RequestId, Sampling


async def warm_up(engine: Engine) -> None:
    """Compute one token, so that readiness means tokens. Raises what the engine raises."""
    sampling = Sampling(max_tokens=1, temperature=0)
    prompt = (engine.info.vocab_size - 1,) * 2
    request = GenerationRequest(
        RequestId("warm-up"), prompt, sampling, pooled=not engine.info.generates
    )
    async for _ in engine.generate(request):
        pass


def settle_memory() -> None:
    """What is loaded by now stays: the collector need not look through it again and again.

    It is half a million objects, most of them torch's: 0.25 to 0.3 s in which no stream goes on,
    each time that requests have made a few thousand objects that outlive others.
    """
    gc.collect()
    gc.freeze()
