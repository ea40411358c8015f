"""The models that are served, as Anthropic's clients list them: one page, whatever was asked."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from openai_compat.models import find
from openai_compat.served import ServedModel
from openai_compat.sse import json_bytes


def info_body(served: Mapping[str, ServedModel], name: str) -> bytes:
    """The answer of /v1/models/{id}. Raises `NotFound`."""
    return json_bytes(_info(find(served, name), name))


def page_body(served: Iterable[ServedModel]) -> bytes:
    """The answer of /v1/models: every model once, then once per alias."""
    models = {id(model): model for model in served}.values()
    page = [_info(model, name) for model in models for name in (model.name, *model.aliases)]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
    return json_bytes({"data": page, "has_more": False, **ends})


def _info(model: ServedModel, name: str) -> dict[str, object]:
    """`max_tokens` is the room that a prompt of one token leaves."""
    context = model.info.max_context
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": context - 1,
        "max_tokens": context - 1,
    }
