"""How a durable call ended, as the journal has it."""

from dataclasses import dataclass

import msgspec

from openai_compat.errors import ErrorReply
from openai_compat.responses.render import ResponseRenderer
from openai_compat.responses.snapshot import Status


@dataclass(frozen=True, slots=True)
class Ending:
    """The last status, and the error of one that failed."""

    status: Status
    error: ErrorReply | None = None


def pack_ending(status: Status, error: ErrorReply | None = None) -> bytes:
    """An ending as the journal takes it."""
    return msgspec.json.encode(Ending(status, error))


def ending_of(renderer: ResponseRenderer) -> bytes:
    """The ending of a response that has ended."""
    return pack_ending(renderer.status, renderer.error)


def unpack_ending(packed: bytes) -> Ending:
    """Raises ValueError for what is no ending."""
    return msgspec.json.decode(packed, type=Ending)
