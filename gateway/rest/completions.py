"""POST /v1/completions."""

from fastapi import APIRouter, Request, Response

from gateway.rest.calls import CallRunner
from openai_compat.completions.lower import lower_completion


def routes(calls: CallRunner) -> APIRouter:
    """The completion route."""
    router = APIRouter()

    @router.post("/v1/completions")
    async def create_completion(request: Request) -> Response:
        return await calls.run(request, lower_completion)

    return router
