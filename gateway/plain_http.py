"""A request that asks for another protocol (h2c, websocket), as the plain HTTP/1.1 that it also is.

A server may ignore the wish (RFC 9110, 7.8), but httptools cannot: it skips the body of such a
request and stops there. So its head, less the wish, goes to a new parser, and then what follows.
"""

from collections.abc import Iterable

import httptools

_OF_AN_UPGRADE = frozenset({b"upgrade", b"http2-settings"})


def new_parser(protocol: object) -> httptools.HttpRequestParser:
    """As uvicorn makes it: data after a `connection: close` is not an error."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def plain_head(
    parser: httptools.HttpRequestParser, url: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """The head that `parser` has just read, without its wish for another protocol."""
    version = parser.get_http_version().encode()
    lines = [b"%s %s HTTP/%s" % (parser.get_method(), url, version)]
    for name, value in headers:
        if name == b"connection":
            lines.append(b"connection: " + _without_upgrade(value))
        elif name not in _OF_AN_UPGRADE:
            lines.append(name + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _without_upgrade(connection: bytes) -> bytes:
    wishes = (wish.strip() for wish in connection.split(b","))
    return b", ".join(wish for wish in wishes if wish.lower() not in _OF_AN_UPGRADE)
