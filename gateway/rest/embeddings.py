"""POST /v1/embeddings."""

from fastapi import APIRouter, Request, Response

from gateway.rest.calls import CallRunner
from openai_compat.embeddings.lower import lower_embeddings


def routes(calls: CallRunner) -> APIRouter:
    """The embedding route."""
    router = APIRouter()

    @router.post("/v1/embeddings")
    async def create_embeddings(request: Request) -> Response:
        return await calls.vectors(request, lower_embeddings)

    return router
