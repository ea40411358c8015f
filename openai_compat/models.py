"""The model list and card, and finding a served model by the name a client uses."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from openai_compat.errors import NotFound
from openai_compat.served import ServedModel
from openai_compat.sse import json_bytes

OWNER = "penstock"


def find(served: Mapping[str, ServedModel], name: str) -> ServedModel:
    """The model of that name or alias. Raises `NotFound` (model_not_found); never repeats it."""
    model = served.get(name)
    if model is not None:
        return model
    for other in served.values():
        if name == other.name or name in other.aliases:
            return other
    raise NotFound(
        "There is no model of that name here; GET /v1/models lists those that are served.",
        code="model_not_found",
        param="model",
    )


def with_adapters(model: ServedModel) -> dict[str, ServedModel]:
    """The model by its name, and each adapter of its engine as a model: the same text side."""
    info = replace(model.info, embeds=None, ranks=False)  # adapters are of what generates
    adapters = {
        name: replace(model, name=name, aliases=(), base=model.name, info=info)
        for name in (info.adapters if info.generates else ())
    }
    return {model.name: model, **adapters}


def card(model: ServedModel, name: str | None = None) -> dict[str, object]:
    """The model object, under its own name or one of its aliases."""
    info = model.info
    purposes = {
        "generate": info.generates,
        "embed": info.embeds is not None,
        "rank": info.ranks or info.embeds is not None,
    }
    found: dict[str, object] = {
        "id": name or model.name,
        "object": "model",
        "created": model.created,
        "owned_by": OWNER,
        "max_model_len": info.max_context,
        "purposes": [purpose for purpose, had in purposes.items() if had],
    }
    if model.base:
        found |= {"root": model.base, "parent": model.base}
    return found if info.embeds is None else {**found, "embedding_size": info.embeds.size}


def card_body(served: Mapping[str, ServedModel], name: str) -> bytes:
    """The answer of /v1/models/{id}; ids may hold slashes. Raises `NotFound`."""
    return json_bytes(card(find(served, name), name))


def list_body(served: Iterable[ServedModel]) -> bytes:
    """The answer of /v1/models: every model once, then once per alias."""
    models = {id(model): model for model in served}.values()
    cards = [card(model, name) for model in models for name in (model.name, *model.aliases)]
    return json_bytes({"object": "list", "data": cards})
