"""POST /v1/tokenize, /v1/detokenize and /v1/chat/completions/render: what needs no engine."""

from fastapi import APIRouter, Request, Response

from gateway.rest.calls import CallRunner
from openai_compat.tokens.lower import detokenize, render_chat, tokenize


def routes(calls: CallRunner) -> APIRouter:
    """The routes between text and tokens."""
    router = APIRouter()

    @router.post("/v1/tokenize")
    async def create_tokens(request: Request) -> Response:
        return await calls.prepare(request, tokenize)

    @router.post("/v1/detokenize")
    async def create_text(request: Request) -> Response:
        return await calls.prepare(request, detokenize)

    @router.post("/v1/chat/completions/render")
    async def render(request: Request) -> Response:
        return await calls.prepare(request, render_chat)

    return router
