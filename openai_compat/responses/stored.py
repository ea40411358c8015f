"""What is kept of a response, and what later requests take from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import msgspec

from openai_compat.errors import NotFound, RequestRejected, Unavailable
from openai_compat.responses.ids import owner
from openai_compat.responses.items import MAX_ITEMS, Item
from openai_compat.responses.snapshot import Status

_OVERHEAD_BYTES = 1024  # of the objects around the bytes
_CONTINUED = frozenset({Status.COMPLETED, Status.INCOMPLETE})


@dataclass(frozen=True, slots=True)
class Key:
    """Whose response it is, and its id: nobody finds another tenant's."""

    tenant: bytes
    id: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response. Items and object are JSON: a tenth of what they take as Python objects."""

    key: Key
    status: Status
    body: bytes  # the response object
    input: bytes  # its own input items, an array
    previous: str | None
    background: bool
    obfuscated: bool = False  # its deltas are padded
    events: Sequence[bytes] = ()  # one each, in order; kept of responses in the background
    first_event: int = 0  # sequence number of the first one that is kept

    @property
    def size(self) -> int:
        """Bytes without events."""
        return _OVERHEAD_BYTES + len(self.body) + len(self.input)

    def input_items(self) -> list[Item]:
        """What it was given itself."""
        return cast("list[Item]", msgspec.json.decode(self.input))

    def output_items(self) -> list[Item]:
        """What it gave."""
        return cast("list[Item]", msgspec.json.decode(self.body)["output"])


@dataclass(frozen=True, slots=True)
class Past:
    """The stored responses that a request goes back to."""

    chain: tuple[StoredResponse, ...] = ()  # of previous_response_id, oldest first
    referred: tuple[StoredResponse, ...] = ()  # whose items the input refers to

    @property
    def size(self) -> int:
        """Bytes that reading it takes."""
        return sum(response.size for response in (*self.chain, *self.referred))

    def items(self) -> list[Item]:
        """The conversation before the request; a call that broke off has no place in it."""
        return [
            item
            for response in self.chain
            for item in (*response.input_items(), *response.output_items())
            if item["type"] != "function_call" or item["status"] == "completed"
        ]

    def named(self) -> dict[str, Item]:
        """The items that may be referred to, by their ids."""
        return {
            str(item["id"]): item
            for response in self.referred
            for item in (*response.input_items(), *response.output_items())
        }


def referred_ids(body: Mapping[str, object]) -> set[str]:
    """The responses whose items the `input` of a request refers to; the body may hold anything.

    None of an input with more items than may be, which is refused when it is read.
    """
    given = body.get("input")
    found = set()
    for item in given if isinstance(given, list) and len(given) <= MAX_ITEMS else []:
        if isinstance(item, dict) and item.get("type") in ("item_reference", None):
            item_id = item.get("id")
            if isinstance(item_id, str) and "role" not in item:
                found.add(owner(item_id))
    return {response for response in found if response is not None}


def check_continued(previous: StoredResponse) -> None:
    """Raises `RequestRejected` for a response that nothing can follow."""
    if previous.status in _CONTINUED:
        return
    raise RequestRejected(
        f"The previous response is {previous.status.value}; only one that is completed or"
        " incomplete can be continued.",
        param="previous_response_id",
        code="previous_response_not_usable",
    )


def check_place(response: StoredResponse, after: int) -> None:
    """Raises `RequestRejected` where the events after a number are not kept, or never will be."""
    first, end = response.first_event, response.first_event + len(response.events)
    if first - 1 <= after and (after < end or response.status.live):
        return
    raise no_place(first, end - 1)


def no_place(first: int, last: int) -> RequestRejected:
    """What a reader is told whose place is not in a response that has events of these numbers."""
    return RequestRejected(
        f"'starting_after' is not the number of an event that is kept: the response has those from"
        f" {first} to {last}.",
        param="starting_after",
    )


def no_store() -> Unavailable:
    """What a client is told where the store of all gateways does not answer: it may be there."""
    return Unavailable(
        "What is kept in Redis for all gateways cannot be reached at this moment.",
        code="store_unavailable",
        retry_after_s=2.0,
    )


def no_response() -> NotFound:
    """What an id leads to that is not there, or not the caller's."""
    return NotFound(
        "There is no such response: it was never stored, was deleted, has expired or made room for"
        " newer ones (--response-ttl-s, --response-store-bytes), or is not yours.",
        code="response_not_found",
        param="response_id",
    )


def no_previous() -> NotFound:
    """The same for a response that a request wants to continue."""
    return NotFound(
        "The previous response, or one before it, is not there: it was never stored, was deleted,"
        " has expired or made room for newer ones (--response-ttl-s, --response-store-bytes), or is"
        " not yours. Send the conversation as input items instead.",
        code="previous_response_not_found",
        param="previous_response_id",
    )
