"""GET /v1/models and /v1/models/{id}, in the dialect of the client."""

from fastapi import APIRouter, Request, Response

from gateway.dialects import speaks_anthropic
from gateway.lifecycle import Lifecycle
from gateway.replies import json_response
from openai_compat.anthropic.models import info_body, page_body
from openai_compat.models import card_body, list_body

_READ = ["GET", "HEAD"]


def routes(lifecycle: Lifecycle) -> APIRouter:
    """The model routes; an id may hold slashes."""
    router = APIRouter()

    @router.api_route("/v1/models", methods=_READ)
    async def list_models(request: Request) -> Response:
        listed = page_body if speaks_anthropic(request.scope) else list_body
        return json_response(listed(lifecycle.serving().models.values()))

    @router.api_route("/v1/models/{name:path}", methods=_READ)
    async def retrieve_model(request: Request, name: str) -> Response:
        told = info_body if speaks_anthropic(request.scope) else card_body
        return json_response(told(lifecycle.serving().models, name))

    return router
