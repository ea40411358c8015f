"""POST /v1/rerank (Cohere's clients call it /v2/rerank) and /v1/score."""

from fastapi import APIRouter, Request, Response

from gateway.rest.calls import CallRunner
from openai_compat.scoring.lower import lower_rerank, lower_score


def routes(calls: CallRunner) -> APIRouter:
    """The routes that compare texts."""
    router = APIRouter()

    @router.post("/v1/rerank")
    async def rerank(request: Request) -> Response:
        return await calls.vectors(request, lower_rerank)

    @router.post("/v1/score")
    async def score(request: Request) -> Response:
        return await calls.vectors(request, lower_score)

    return router
