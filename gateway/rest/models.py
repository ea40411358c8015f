"""GET /v1/models and /v1/models/{id}."""

from fastapi import APIRouter, Response

from gateway.lifecycle import Lifecycle
from gateway.replies import json_response
from openai_compat.models import card_body, list_body


def routes(lifecycle: Lifecycle) -> APIRouter:
    """The model routes; an id may hold slashes."""
    router = APIRouter()

    @router.get("/v1/models")
    async def list_models() -> Response:
        return json_response(list_body(lifecycle.serving().models.values()))

    @router.get("/v1/models/{name:path}")
    async def retrieve_model(name: str) -> Response:
        return json_response(card_body(lifecycle.serving().models, name))

    return router
