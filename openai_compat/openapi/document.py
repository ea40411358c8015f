"""The whole OpenAPI document: every dialect's paths and schemas, put together."""

from openai_compat.openapi import (
    chat,
    completions,
    errors,
    generation,
    messages,
    models,
    operations,
    responses,
    tokens,
    vectors,
)
from openai_compat.openapi.shapes import Schema

DIALECTS = (chat, completions, responses, messages, vectors, tokens, models, operations)
_ABOUT = """\
The OpenAI dialect over an in-flight batching scheduler. A field does what OpenAI documents, or gets
a 400 that names it; fields that nobody knows are ignored and listed in `x-ignored-params`. Every
path works with and without `/v1`, and with a slash at the end."""


def document(version: str) -> Schema:
    """OpenAPI 3.1, the same for every server of a version: nothing of its models or settings."""
    paths: Schema = {}
    schemas: Schema = {"Error": errors.ERROR, **generation.SCHEMAS}
    for dialect in DIALECTS:
        paths |= dialect.PATHS
        schemas |= dialect.SCHEMAS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This server"}],
        "security": [{"key": []}, {"bareKey": []}, {}],  # a server without keys asks for none
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": errors.components(),
            "headers": {name: {"schema": schema} for name, schema in errors.HEADERS.items()},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "bareKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }
