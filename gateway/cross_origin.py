"""Which web pages of other origins may call, and what their browsers are told about it (CORS).

Not Starlette's middleware: it refuses in plain text, takes header names one by one (SDKs send a
dozen `x-stainless-*`), and would answer outside of the edge, without request id and log line.
Cookies are never asked for: the key stands in a header that the page itself must set.
"""

import re
from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import Scope

from gateway.limits import LIMIT_HEADERS
from gateway.setting_kinds import ANY_ORIGIN
from openai_compat.errors import RequestRejected

EXPOSED = (
    "x-request-id",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ignored-params",
    *LIMIT_HEADERS,
)
_METHODS = "GET, HEAD, POST, DELETE"
_REMEMBER_S = 600
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_ ,.-]{1,4096}")


class CrossOrigin:
    """Answers preflights, and marks responses as readable for the pages of `origins`."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._any = ANY_ORIGIN.encode() in self._origins
        self._exposed = ", ".join(EXPOSED).encode()

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What every response to this request carries, whatever its status."""
        if not self._origins:
            return []
        allowed = self._allowed(_header(scope, b"origin"))
        if allowed is None:
            return [(b"vary", b"origin")]
        marks = [
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", self._exposed),
        ]
        return marks if self._any else [*marks, (b"vary", b"origin")]

    def preflight(self, scope: Scope) -> Response | None:
        """The answer to a browser that asks first; None for any other request, or without CORS.

        Raises RequestRejected for a page that may not call.
        """
        origin = _header(scope, b"origin")
        asks = scope["method"] == "OPTIONS" and _header(scope, b"access-control-request-method")
        if not asks or origin is None or not self._origins:
            return None
        if self._allowed(origin) is None:
            raise RequestRejected(
                "Pages of this origin may not call here (--cors-origin lists those that may).",
                code="origin_not_allowed",
                status=403,
            )
        headers = {
            "access-control-allow-methods": _METHODS,
            "access-control-max-age": str(_REMEMBER_S),
            "vary": "access-control-request-headers",
        }
        wanted = (_header(scope, b"access-control-request-headers") or b"").decode("latin-1")
        if _HEADER_NAMES.fullmatch(wanted):  # without cookies no header is a danger by its name
            headers["access-control-allow-headers"] = wanted
        return Response(status_code=204, headers=headers)

    def _allowed(self, origin: bytes | None) -> bytes | None:
        if origin is None:
            return None
        if self._any:
            return ANY_ORIGIN.encode()
        return origin if origin in self._origins else None


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)
