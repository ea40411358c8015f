"""How an operation is written down, and the operations beside the API: probes, metrics, events."""

from collections.abc import Mapping
from dataclasses import dataclass

from openai_compat.openapi.errors import CALLING, READING, header_refs, refusals
from openai_compat.openapi.shapes import Schema, answer, choice, ref, text, words

SSE = "text/event-stream"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Example:
    """A request that really gives `status`; for a call its body, else nothing."""

    summary: str
    value: object
    status: int = 200


@dataclass(frozen=True, slots=True)
class About:
    """What an operation is called and does."""

    name: str
    tag: str
    summary: str
    doc: str = ""

    def told(self) -> Schema:
        """As the document has it."""
        doc = {"description": self.doc} if self.doc else {}
        return {"operationId": self.name, "summary": self.summary, "tags": [self.tag], **doc}


def call(
    about: About,
    *,
    request: str,
    examples: Mapping[str, Example],
    responses: Mapping[str, object],
) -> Schema:
    """A POST of JSON: `request` and the values of `responses` name schemas of the components."""
    told = {
        key: {"summary": example.summary, "value": example.value, "x-status": example.status}
        for key, example in examples.items()
    }
    success = {
        "description": "The answer.",
        "headers": header_refs("x-request-id", "x-ignored-params"),
        "content": responses,
    }
    return {
        **about.told(),
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": ref(request), "examples": told}},
        },
        "responses": {"200": success, **refusals(CALLING)},
    }


def reading(
    about: About,
    content: Mapping[str, object],
    *,
    also: Mapping[str, object] | None = None,
    more: Mapping[str, object] | None = None,
) -> Schema:
    """A GET. `also` holds further responses, `more` what else the operation says."""
    success = {
        "description": "The answer.",
        "headers": header_refs("x-request-id"),
        "content": content,
    }
    return {
        **about.told(),
        **(more or {}),
        "responses": {"200": success, **refusals(READING), **(also or {})},
    }


def shown(schema: Schema, example: object) -> Schema:
    """A media type with its schema and an example."""
    return {"schema": schema, "example": example}


def events(data: Schema, example: str) -> Schema:
    """A stream of server-sent events; OpenAPI 3.1 has no word for the schema of their data."""
    return {"example": example, "x-event-data": data}


_OPEN: Schema = {"security": []}
STATE = answer(
    {
        "status": choice("What the process is doing.", "loading", "ready", "draining", "failed"),
        "phase": text("In words, such as `loading weights`."),
    }
)
_READY = {"status": "ready", "phase": "ready"}


_LATER: Schema = {"503": {"description": "Not.", "content": {JSON: {"schema": ref("State")}}}}


def _readiness(name: str, summary: str) -> Schema:
    content = {JSON: shown(ref("State"), _READY)}
    return reading(About(name, "Operation", summary), content, also=_LATER, more=_OPEN)


_METRICS = "# HELP penstock_requests_total Requests by route and status.\n"
_EVENTS = 'event: phase\ndata: {"status":"ready","phase":"ready"}\n\n'
PATHS: dict[str, Schema] = {
    "/livez": {
        "get": reading(
            About("live", "Operation", "Whether the process answers"),
            {JSON: shown(answer({"status": words("alive")}), {"status": "alive"})},
            more=_OPEN,
        )
    },
    "/readyz": {"get": _readiness("ready", "Whether calls are taken")},
    "/health": {"get": _readiness("health", "The same as /readyz")},
    "/metrics": {
        "get": reading(
            About("metrics", "Operation", "Figures for Prometheus"),
            {"text/plain": shown(text("The text exposition."), _METRICS)},
        )
    },
    "/events": {
        "get": reading(
            About("events", "Operation", "What the process is doing, told as it changes"),
            {SSE: events(ref("State"), _EVENTS)},
            more={"x-endless": True},
        )
    },
    "/openapi.json": {
        "get": reading(
            About("openapi", "Operation", "This document"),
            {JSON: shown({"type": "object"}, {"openapi": "3.1.0"})},
            more=_OPEN,
        )
    },
}
SCHEMAS: dict[str, Schema] = {"State": STATE}
