"""Vectors from any engine that takes pooled requests: the `Embedder` over an `Engine`."""

from collections.abc import Sequence
from contextlib import aclosing

from engines.api import EmbeddingRequest, Engine, EngineInfo, GenerationRequest, Sampling
from engines.errors import EngineDied, Unsupported

# Prompts are computed like any other, so they batch with running chats; of the one token that a
# pooled request must ask for, nobody takes notice.
_ONE_TOKEN = Sampling(max_tokens=1, temperature=0.0)


class PooledEmbedder:
    """Implements `Embedder` by pooled requests to an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def embed(self, request: EmbeddingRequest) -> Sequence[float]:
        async with aclosing(self._engine.generate(pooled(request))) as stream:
            async for event in stream:
                if event.vector is not None:
                    return event.vector
        raise EngineDied("the engine ended a pooled request without a vector")


def pooled(request: EmbeddingRequest) -> GenerationRequest:
    """The same request as an engine's scheduler takes it."""
    return GenerationRequest(
        id=request.id,
        prompt=request.prompt,
        sampling=_ONE_TOKEN,
        priority=request.priority,
        cache_salt=request.cache_salt,
        pooled=True,
        second=request.second,
        tenant=request.tenant,
        weight=request.weight,
    )


def check_purpose(request: GenerationRequest, info: EngineInfo) -> None:
    """Raise Unsupported for tokens of an engine that has none to give, or for its vectors."""
    if request.pooled and info.embeds is None and not info.ranks:
        raise Unsupported("this engine makes no vectors", param="pooled")
    if not request.pooled and not info.generates:
        raise Unsupported("this engine makes vectors, and generates nothing", param="pooled")
