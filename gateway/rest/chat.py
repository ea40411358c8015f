"""POST /v1/chat/completions, and going on with its streams."""

from fastapi import APIRouter, Request, Response

from gateway.kept_stream import Route
from gateway.rest.kept_calls import KeptCalls
from openai_compat.chat.lower import lower_chat


def routes(calls: KeptCalls) -> APIRouter:
    """The chat routes."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def create_chat_completion(request: Request) -> Response:
        return await calls.run(request, lower_chat, Route.CHAT)

    @router.get("/v1/chat/completions/{stream_id}/stream")
    async def resume_chat_completion(request: Request, stream_id: str) -> Response:
        return await calls.resume(request, stream_id, lower_chat, Route.CHAT)

    return router
