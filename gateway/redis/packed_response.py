"""A stored response as one value of Redis: a line of JSON, the response object, its input items.

    {"v":1,"status":"completed","previous":null,...,"body":812} LF OBJECT ARRAY

Events are not in it: one that has ended is streamed again only where it was made.
"""

from hashlib import blake2b

import msgspec

from openai_compat.responses.snapshot import Status
from openai_compat.responses.stored import Key, StoredResponse

_VERSION = 1  # raised where a reader of before could not go by what it reads


class UnknownForm(Exception):  # noqa: N818 - what it is
    """A value that this version cannot read."""


class _Version(msgspec.Struct):
    v: int


class _Head(msgspec.Struct):
    v: int
    status: Status
    previous: str | None
    background: bool
    obfuscated: bool
    events: int  # how many there were
    body: int  # bytes of the object


def tag_of(key: Key) -> str:
    """What stands for a response in the names of keys: nobody can read tenant or id from it."""
    digest = blake2b(key.id.encode(), key=key.tenant[:64], digest_size=20, person=b"response")
    return digest.hexdigest()


def pack(response: StoredResponse) -> bytes:
    """The value of a response that has ended."""
    head = _Head(
        _VERSION,
        response.status,
        response.previous,
        response.background,
        response.obfuscated,
        response.first_event + len(response.events),
        len(response.body),
    )
    return b"".join((msgspec.json.encode(head), b"\n", response.body, response.input))


def unpack(key: Key, value: bytes) -> StoredResponse:
    """The response of a value. Raises UnknownForm."""
    line, _, rest = value.partition(b"\n")
    try:
        version = msgspec.json.decode(line, type=_Version).v
        if version != _VERSION:
            raise UnknownForm(f"version {version}")
        head = msgspec.json.decode(line, type=_Head)
    except msgspec.MsgspecError as error:
        raise UnknownForm("no head that can be read") from error
    if not 0 <= head.body <= len(rest):
        raise UnknownForm("it is cut")
    return StoredResponse(
        key,
        head.status,
        rest[: head.body],
        rest[head.body :],
        head.previous,
        background=head.background,
        obfuscated=head.obfuscated,
        first_event=head.events,
    )
