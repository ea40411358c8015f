"""The model list and card, described."""

from openai_compat.models import OWNER
from openai_compat.openapi.operations import JSON, About, reading, shown
from openai_compat.openapi.shapes import Schema, answer, integer, items, ref, text, words

_CARD = {
    "id": "penstock-tiny",
    "object": "model",
    "created": 1700000000,
    "owned_by": OWNER,
    "max_model_len": 2048,
    "purposes": ["generate", "embed", "rank"],
    "embedding_size": 320,
}
SCHEMAS: dict[str, Schema] = {
    "Model": answer(
        {
            "id": text("What requests call it; aliases are listed beside it."),
            "object": words("model"),
            "created": integer(0, None, "Unix seconds."),
            "owned_by": text(),
            "max_model_len": integer(1, None, "Tokens of prompt and output together."),
            "purposes": items(words("generate", "embed", "rank"), "What requests may ask of it."),
            "embedding_size": integer(1, None, "Numbers in a vector, where it embeds."),
            "root": text("The model that it is a LoRA adapter of."),
            "parent": text("The same."),
        },
        maybe=("embedding_size", "root", "parent"),
    ),
    "ModelList": answer({"object": words("list"), "data": items(ref("Model"))}),
}
_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": text("A name or alias; slashes in it may stand as they are."),
    "example": "penstock-tiny",
}
PATHS: dict[str, Schema] = {
    "/v1/models": {
        "get": reading(
            About("listModels", "Models", "The models that are served"),
            {JSON: shown(ref("ModelList"), {"object": "list", "data": [_CARD]})},
        )
    },
    "/v1/models/{name}": {
        "get": reading(
            About("retrieveModel", "Models", "One model"),
            {JSON: shown(ref("Model"), _CARD)},
            more={"parameters": [_NAME]},
        )
    },
}
