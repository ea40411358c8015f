"""GET /events: what the process is doing, told as it changes.

A low-rate stream, so sse-starlette carries it; token streams have a writer of their own (sse.py).
"""

from collections.abc import AsyncGenerator

import msgspec
from fastapi import APIRouter, Response
from sse_starlette import EventSourceResponse

from gateway.lifecycle import Lifecycle

_PING_S = 15


def routes(lifecycle: Lifecycle) -> APIRouter:
    """The route, over the one owner of the phase."""
    router = APIRouter()

    @router.get("/events")
    async def events() -> Response:
        """One `phase` event per change, from the present one to the end of the process."""
        return EventSourceResponse(_events(lifecycle), ping=_PING_S, sep="\n")

    return router


async def _events(lifecycle: Lifecycle) -> AsyncGenerator[dict[str, str], None]:
    async for state in lifecycle.states():
        yield {"event": "phase", "data": msgspec.json.encode(state).decode()}
