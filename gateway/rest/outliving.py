"""Streams whose workers live on when this gateway ends: they are cut then, and do not fail."""

from collections.abc import AsyncGenerator

from gateway.dispatch import Call
from openai_compat.errors import ErrorReply

_ENDS = (
    "engine_unavailable"  # of a stream that runs: this gateway ends, and its time to drain is over
)


class Outliving:
    """A call that another gateway can go on with. Implements `sse.Source`.

    An error event would say that the stream is over. A connection that is cut says what is true:
    this gateway is gone, as if it had been killed, and the rest is there for who comes back.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def frames(self) -> AsyncGenerator[bytes, None]:
        return self._call.frames()

    def fail(self, error: ErrorReply) -> bytes:
        return b"" if error.code == _ENDS else self._call.fail(error)

    async def aclose(self) -> None:
        await self._call.aclose()
