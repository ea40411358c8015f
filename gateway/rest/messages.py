"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's dialect."""

from fastapi import APIRouter, Request, Response

from gateway.rest.calls import CallRunner
from openai_compat.anthropic.lower import count_tokens, lower_message


def routes(calls: CallRunner) -> APIRouter:
    """The routes of messages."""
    router = APIRouter()

    @router.post("/v1/messages")
    async def create_message(request: Request) -> Response:
        return await calls.run(request, lower_message)

    @router.post("/v1/messages/count_tokens")
    async def count_message_tokens(request: Request) -> Response:
        return await calls.prepare(request, count_tokens)

    return router
