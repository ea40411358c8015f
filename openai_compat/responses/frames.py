"""Events of a response as bytes, numbered densely from 0.

A delta is a head, a number, the item it belongs to, and the text: all but number and text are made
once per item, so a frame costs no JSON object.
"""

from collections.abc import Mapping

from openai_compat.errors import ErrorReply
from openai_compat.sse import json_bytes

_PAD_TO = 64  # bytes; padded deltas are all of a multiple of it
_PADDING = b',"obfuscation":"'
_END = b"}\n\n"


class Events:
    """Writes the events of one response. Silent, it writes nothing: answers that do not stream."""

    __slots__ = ("number", "obfuscated", "silent")

    def __init__(self, *, silent: bool = False, obfuscated: bool = False, first: int = 0) -> None:
        self.number = first
        self.silent = silent
        self.obfuscated = obfuscated

    def event(self, kind: str, fields: Mapping[str, object]) -> bytes:
        """One event; its type stands in the event line and in the object, as clients read either"""
        if self.silent:
            return b""
        data = json_bytes({"type": kind, "sequence_number": self.number, **fields})
        self.number += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def error_event(events: Events, error: ErrorReply) -> bytes:
    """Flat, as documented, and nested, as it is on the wire of OpenAI and as SDKs look for."""
    told = {"code": error.code, "message": error.message, "param": error.param}
    return events.event("error", {**told, "error": {"type": error.type, **told}})


class Deltas:
    """The deltas of one part of one item."""

    __slots__ = ("_events", "_head", "_middle")

    def __init__(self, events: Events, kind: str, place: Mapping[str, object]) -> None:
        self._events = events
        self._head = f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":'.encode()
        self._middle = b"," + json_bytes(place)[1:-1] + b',"delta":'

    def write(self, text: str, more: bytes = b"") -> bytes:
        """One delta; `more` are further members of its object, as JSON, with a comma before."""
        events = self._events
        if events.silent:
            return b""
        number = b"%d" % events.number
        events.number += 1
        frame = self._head + number + self._middle + json_bytes(text) + more
        return _padded(frame) if events.obfuscated else frame + _END


def _padded(frame: bytes) -> bytes:
    """The end of a delta whose length tells little about its text."""
    short = -len(frame + _PADDING + b'"' + _END) % _PAD_TO
    return frame + _PADDING + b"x" * short + b'"' + _END
