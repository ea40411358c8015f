"""What the HTTP parser lets pass and RFC 9112 does not: two readers could see two different things.

The parser itself refuses the rest of its kind (tests/e2e/test_raw_fuzz.py holds the list).
"""

from starlette.types import Scope

from openai_compat.errors import RequestRejected

_VERSIONS = ("1.0", "1.1")


def check_framing(scope: Scope) -> None:
    """Raise RequestRejected (malformed_http) for a head that others may read otherwise."""
    version, headers = scope["http_version"], scope["headers"]
    if version not in _VERSIONS:
        raise _malformed("This server speaks HTTP/1.0 and 1.1")
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (hosts == 0 and version != "1.0"):
        raise _malformed(f"A request has exactly one Host header, this one {hosts}")
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or version == "1.0"):
        raise _malformed("The only transfer coding is `chunked`, alone and in HTTP/1.1")


def _malformed(message: str) -> RequestRejected:
    return RequestRejected(f"{message}.", code="malformed_http")
