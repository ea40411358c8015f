"""What requests go back to: stored responses, and the chains of those that they continue."""

from collections.abc import Mapping
from typing import Any

from gateway.responses.store import ResponseStore
from openai_compat.errors import RequestRejected
from openai_compat.responses.items import MAX_ITEMS
from openai_compat.responses.stored import (
    Key,
    Past,
    StoredResponse,
    check_continued,
    no_previous,
    referred_ids,
)

_MAX_CHAIN = MAX_ITEMS // 2  # a response has an item of its own input and one of its output
_MAX_PAST_BYTES = 16 << 20  # more than any context holds; a tenth of a second to read


class Recollection:
    """Reads the past of requests from a store."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def past(self, body: Mapping[str, Any], tenant: bytes) -> Past:
        """What a request refers to. Raises NotFound for a previous response that is not there."""
        previous = body.get("previous_response_id")
        chain: tuple[StoredResponse, ...] = ()
        if isinstance(previous, str):
            chain = await self.chain(Key(tenant, previous))
            check_continued(chain[-1])
        keys = [Key(tenant, response) for response in sorted(referred_ids(body))]
        referred = [await self._store.get(key) for key in keys]
        past = Past(chain, tuple(found for found in referred if found is not None))
        if past.size > _MAX_PAST_BYTES:
            raise _too_much("previous_response_id" if chain else "input")
        return past

    async def chain(self, key: Key) -> tuple[StoredResponse, ...]:
        """A response and all it continued, oldest first. Fetched so that the newest is used last.

        Raises NotFound where one is missing, RequestRejected where there are too many.
        """
        chain: list[StoredResponse] = []
        name: str | None = key.id
        while name is not None:
            found = await self._store.get(Key(key.tenant, name))
            if found is None:
                raise no_previous()
            chain.append(found)
            name = found.previous
            if len(chain) > _MAX_CHAIN:
                raise _too_much("previous_response_id")
        return tuple(reversed(chain))


def _too_much(param: str) -> RequestRejected:
    return RequestRejected(
        f"'{param}' goes back to more than {_MAX_CHAIN} responses or {_MAX_PAST_BYTES} bytes; send"
        " what matters of it as input items.",
        param=param,
        code="context_length_exceeded",
    )
