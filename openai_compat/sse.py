"""Server-sent event frames as bytes: a head and a tail made once per stream, text in between."""

import msgspec

from openai_compat.errors import ErrorReply

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


def json_bytes(value: object) -> bytes:
    """Compact JSON."""
    return _encode(value)


def event(value: object) -> bytes:
    """One event around a JSON value."""
    return b"data: " + _encode(value) + b"\n\n"


def error_event(error: ErrorReply) -> bytes:
    """The nested error object as an event: the only shape in which every client sees it."""
    return b"data: " + error.body() + b"\n\n"


def split_event(value: object, marker: str) -> tuple[bytes, bytes]:
    """The event around `value`, cut where the string `marker` stands in it; both parts are bytes.

    `marker` stands once; what comes after it must not hold it again. Whatever JSON value goes
    between the parts completes the event.
    """
    head, _, tail = event(value).rpartition(_encode(marker))
    return head, tail
