"""POST /v1/completions, and going on with its streams."""

from fastapi import APIRouter, Request, Response

from gateway.kept_stream import Route
from gateway.rest.kept_calls import KeptCalls
from openai_compat.completions.lower import lower_completion


def routes(calls: KeptCalls) -> APIRouter:
    """The completion routes."""
    router = APIRouter()

    @router.post("/v1/completions")
    async def create_completion(request: Request) -> Response:
        return await calls.run(request, lower_completion, Route.COMPLETIONS)

    @router.get("/v1/completions/{stream_id}/stream")
    async def resume_completion(request: Request, stream_id: str) -> Response:
        return await calls.resume(request, stream_id, lower_completion, Route.COMPLETIONS)

    return router
