"""From a vector job to its answer: admission, a bounded number of prompts at once, and the end."""

import asyncio
from collections.abc import Iterator, Sequence

from engines.api import Embedder, EmbeddingRequest
from gateway.admission import Ticket
from gateway.dispatch import Dispatcher
from gateway.exchange import Exchange
from openai_compat.vector_job import Vector, VectorJob

_WRITE_INLINE = 5_000  # numbers that are written on the event loop, in about a millisecond


class VectorDispatcher:
    """Runs jobs within the admission limits of all calls.

    A job has at most `window` prompts in the engine at a time. So thousands of texts in one call
    neither fill the queue nor stand as one block before everybody else, and they count as that many
    sequences; all their tokens count as waiting.
    """

    def __init__(self, embedder: Embedder, dispatcher: Dispatcher, *, window: int) -> None:
        self._embedder = embedder
        self._dispatcher = dispatcher
        self._window = window

    async def answer(self, job: VectorJob, exchange: Exchange) -> bytes:
        """The whole JSON body. Raises Overloaded or what `embed` raises; cancelling aborts."""
        abreast = min(len(job.requests), self._window)
        ticket = self._dispatcher.enter(abreast, job.prompt_tokens, exchange.caller)
        try:
            vectors = await self._vectors(job, ticket, exchange, abreast)
            if sum(map(len, vectors)) > _WRITE_INLINE:
                return await asyncio.to_thread(job.answer, vectors)
            return job.answer(vectors)
        finally:
            self._dispatcher.release(ticket)

    async def _vectors(
        self, job: VectorJob, ticket: Ticket, exchange: Exchange, abreast: int
    ) -> list[Vector]:
        """The vectors in the order of the requests; none is left running when this ends."""
        found: dict[int, Vector] = {}
        rest = iter(enumerate(job.requests))

        async def work(rest: Iterator[tuple[int, EmbeddingRequest]]) -> None:
            for place, request in rest:
                found[place] = await self._embedder.embed(request)
                exchange.prompt_tokens += len(request.prompt)
                self._dispatcher.admission.computed(ticket, len(request.prompt))

        await _all_or_none([asyncio.create_task(work(rest)) for _ in range(abreast)])
        return [found[place] for place in range(len(job.requests))]


async def _all_or_none(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all; whatever fails, and being cancelled, ends the others first."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
