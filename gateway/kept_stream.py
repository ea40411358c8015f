"""What a worker keeps of a streamed call, so that any gateway can go on with it.

The record is the call itself: its body, and what was drawn for it. Whoever lowers it again gets the
same requests and the same renderer, and tells the rest from the tokens. It stays in the memory of
the worker that computes the call, and of nobody else.
"""

import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum

from engines.api import Kept, RequestId
from openai_compat.cursor import Cursor, parse_cursor
from openai_compat.errors import RequestRejected
from openai_compat.job import Job
from openai_compat.placed import PlacedRenderer

LARGEST_BODY = 256 << 10  # bytes: a call of more is not kept
_VERSION = 1
_ID = re.compile(r"([a-z]+)-([0-9a-f]{24})")


class Route(StrEnum):
    """The routes whose streams are kept, by the prefix of their ids."""

    CHAT = "chatcmpl"
    COMPLETIONS = "cmpl"


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call. The salt says whose it is."""

    route: Route
    now: int
    seed: int
    salt: bytes
    body: bytes

    def pack(self) -> bytes:
        head = {
            "version": _VERSION, "route": self.route, "now": self.now, "seed": self.seed,
            "salt": self.salt.hex(),
        }  # fmt: skip
        return json.dumps(head).encode() + b"\n" + self.body


def unpack(context: bytes) -> CallRecord:
    """The record of a context. Raises ValueError for what another version has written."""
    head, _, body = context.partition(b"\n")
    told = json.loads(head)
    if not isinstance(told, dict) or told.get("version") != _VERSION:
        raise ValueError("a kept call of another version")
    try:
        salt, route = bytes.fromhex(told["salt"]), Route(told["route"])
        return CallRecord(route, int(told["now"]), int(told["seed"]), salt, body)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a kept call without {error}") from None


def kept(job: Job, record: CallRecord, after: Cursor | None = None) -> Job:
    """The job as one whose requests are kept; the frames of a stream tell places, from one on.

    Raises RequestRejected where that is no place of it.
    """
    first, *rest = job.requests
    requests = (
        replace(first, kept=Kept(record.pack())),
        *(replace(request, kept=Kept(b"")) for request in rest),
    )
    return replace(placed(job, after) if job.stream else job, requests=requests)


def placed(job: Job, after: Cursor | None = None) -> Job:
    """The job with a renderer that tells places, from one on. Raises RequestRejected."""
    choices = sum(request.n for request in job.requests)
    per_request = job.requests[0].n
    try:
        renderer = PlacedRenderer(
            job.renderer, choices=choices, per_request=per_request, after=after
        )
    except ValueError as error:
        message = f"This is no place in that stream: {error}."
        raise RequestRejected(message, param="after") from None
    return replace(job, renderer=renderer)


def read_place(after: str | None, last_event_id: str | None) -> Cursor:
    """The place that a reader says it is at, by a parameter or a header; none: at the start.

    Raises RequestRejected.
    """
    given = after or last_event_id
    if not given:
        return Cursor()
    try:
        return parse_cursor(given)
    except ValueError as error:
        raise RequestRejected(f"after: {error}.", param="after") from None


def stem_of(stream_id: str, route: Route) -> str:
    """What an id has behind the prefix of its route; empty where it is no id of one."""
    match = _ID.fullmatch(stream_id)
    return match[2] if match is not None and match[1] == route else ""


def names(stem: str) -> tuple[RequestId, RequestId]:
    """What the first request of a call may be called: one alone, or the first of several."""
    return RequestId(stem), RequestId(f"{stem}-0")
