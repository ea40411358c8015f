"""Keeps web pages out of an open server: refuses Host names that a page could have rebound.

Without API keys only loopback is listened on, yet a page the user visits can point its own name at
127.0.0.1 and then talk to us as to its own origin (DNS rebinding, CVE-2024-28224 elsewhere). Such a
name is a public one: IP addresses, names without a dot and private suffixes are harmless.
"""

from collections.abc import Iterable
from ipaddress import ip_address

from openai_compat.errors import RequestRejected

_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa")


def check_host(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise RequestRejected (421) for a Host that anyone on the internet may own."""
    for name, value in headers:
        if name == b"host" and not _is_private(value.decode("latin-1")):
            raise RequestRejected(
                "This Host is not served without an API key: call it by localhost or by address,"
                " or start the server with --api-key.",
                code="host_not_allowed",
                status=421,
            )


def _is_private(host: str) -> bool:
    name = host.lower()
    bare = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    bare = bare.rstrip(".")
    if "." not in bare or bare.endswith(_PRIVATE_SUFFIXES):
        return True
    try:
        ip_address(bare)
    except ValueError:
        return False
    return True
