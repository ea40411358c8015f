"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request, Response

from gateway.rest.calls import CallRunner
from openai_compat.chat.lower import lower_chat


def routes(calls: CallRunner) -> APIRouter:
    """The chat route."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def create_chat_completion(request: Request) -> Response:
        return await calls.run(request, lower_chat)

    return router
