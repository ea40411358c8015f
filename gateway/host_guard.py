"""Which Host names are served: those of --allowed-host, or without keys those no stranger can own.

Without API keys only loopback is listened on, yet a page the user visits can point its own name at
127.0.0.1 and then talk to us as to its own origin (DNS rebinding, CVE-2024-28224 elsewhere). Such a
name is a public one: IP addresses, names without a dot and private suffixes are harmless.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope

from openai_compat.errors import RequestRejected

_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa")


class HostGuard:
    """Refuses requests by their Host. `allowed` names are exact, or `*.` and a suffix.

    A list of names holds with and without keys. This machine's own names are always served: no
    page can have them, and `penstock chat` uses them.
    """

    def __init__(self, allowed: Iterable[str], *, keyless: bool) -> None:
        names = frozenset(allowed)
        self._exact = frozenset(name for name in names if not name.startswith("*."))
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._listed = bool(names)
        self._keyless = keyless

    def check(self, scope: Scope, *, probe: bool) -> None:
        """Raise RequestRejected (421) for a name that is not served.

        A `probe` may come under any name where names are listed: an orchestrator calls by the
        address that it has just given.
        """
        host = _host_of(scope)
        if host is None:
            return
        if self._listed:
            if not probe and not self._is_listed(host):
                raise _refused("call it by a name that --allowed-host lists")
        elif self._keyless and not _is_private(host):
            raise _refused(
                "without an API key call it by localhost or by address, list the name with"
                " --allowed-host, or start the server with --api-key"
            )

    def _is_listed(self, host: str) -> bool:
        return host in self._exact or host.endswith(self._suffixes) or _is_this_machine(host)


def _refused(how: str) -> RequestRejected:
    message = f"This Host is not served here: {how}."
    return RequestRejected(message, code="host_not_allowed", status=421)


def _host_of(scope: Scope) -> str | None:
    """The Host without its port, in lower case; None where HTTP/1.0 brings none."""
    given: bytes | None = next((value for name, value in scope["headers"] if name == b"host"), None)
    if given is None:
        return None
    host = given.decode("latin-1").lower()
    bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return bare.rstrip(".")


def _is_private(host: str) -> bool:
    return "." not in host or host.endswith(_PRIVATE_SUFFIXES) or _address(host) is not None


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
