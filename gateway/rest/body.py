"""Reading a request body within its limits: type, encoding, size and time."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive

from gateway.rest.client_watch import ClientGone
from openai_compat.errors import PayloadTooLarge, RequestRejected, UnsupportedMedia


class BodyReader:
    """Reads JSON bodies of at most `max_bytes` that arrive within `timeout_s`."""

    def __init__(self, *, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The body. Raises an ApiError for a body that may not be, ClientGone without a client."""
        _check_media(headers)
        self._check_size(_declared_size(headers))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._collect(receive)
        except TimeoutError:
            raise RequestRejected(
                f"The body did not arrive within {self._timeout_s:g} s (--body-timeout-s).",
                code="request_timeout",
                status=408,
            ) from None

    async def _collect(self, receive: Receive) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            self._check_size(len(body))
            more = message.get("more_body", False)
        return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise PayloadTooLarge(
                f"The body is larger than {self._max_bytes} bytes (--max-body-bytes)."
            )


def _check_media(headers: Headers) -> None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMedia("Compressed bodies are not accepted: send no content-encoding.")
    # Also what keeps web pages out: a browser asks first before it sends JSON across origins.
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise UnsupportedMedia("Send the body as `content-type: application/json`.")


def _declared_size(headers: Headers) -> int:
    declared = headers.get("content-length", "0")
    # The HTTP parser has refused what is not a number; its length bounds the conversion.
    return int(declared) if declared.isascii() and declared.isdigit() else 0
