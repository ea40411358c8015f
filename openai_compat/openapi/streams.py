"""Operations that go on with a stream whose reader, or whose gateway, went away."""

from openai_compat.openapi.operations import SSE, About, events, reading
from openai_compat.openapi.shapes import Schema, ref, text

_DOC = (
    "A stream with `x-stream-resume` other than `none` is kept by its worker for so many seconds"
    " after its reader, or its gateway, is gone, and for a minute after its end. What comes is all"
    " behind the place that the reader names: nothing is lost, told twice or computed again."
)
_PARAMETERS = [
    {
        "name": "stream_id",
        "in": "path",
        "required": True,
        "schema": text("`x-stream-id` of the answer that it began in."),
        "example": "chatcmpl-905dc4ac7caf9b7fb820158d",
    },
    {
        "name": "after",
        "in": "query",
        "schema": text("The `id` of the last event that was read; none: from the start."),
    },
    {"name": "Last-Event-ID", "in": "header", "schema": text("The same, as browsers send it.")},
]


def resuming(name: str, tag: str, chunk: str, example: str) -> Schema:
    """The path item of one route's streams."""
    return {
        "get": reading(
            About(name, tag, "Go on with a stream", _DOC),
            {SSE: events(ref(chunk), example)},
            more={"parameters": _PARAMETERS},
        )
    }
