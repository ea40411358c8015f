"""Where Redis is, as its URL says. Pure. No message and no repr ever shows a part of the URL.

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]               one server; rediss:// over TLS
    unix://[USER:PASSWORD@]/PATH[?db=N]                    one server, by a socket file
    redis+sentinel://[...@]HOST[:PORT],.../SERVICE[/DB]    who of them is the master, sentinels say
    redis+cluster://[...@]HOST[:PORT],...                  a cluster; some of its nodes

`rediss+sentinel` and `rediss+cluster` are the same over TLS. Options: `?ca=FILE`, `?cert=FILE`,
`?key=FILE` for TLS, `?sentinel_password=` for sentinels that have one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_PORT, _SENTINEL_PORT = 6379, 26379
_HOST = re.compile(r"(?P<name>[^\s:/@\[\]]+|\[[0-9a-fA-F:.]+\])(:(?P<port>\d{1,5}))?")
_OPTIONS = {"ca", "cert", "key", "db", "sentinel_password"}


class Mode(StrEnum):
    """What stands behind the URL."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = {
    "redis": Mode.SINGLE,
    "unix": Mode.SINGLE,
    "redis+sentinel": Mode.SENTINEL,
    "redis+cluster": Mode.CLUSTER,
}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The parts of the URL."""

    mode: Mode
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""  # of the socket file, and then there are no hosts
    service: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: bool = False
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    patient: bool = False  # somebody waits who would rather have an answer late than never

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return bool(self.path) or all(_is_loopback(name) for name, _ in self.hosts)


def parse_address(url: str) -> RedisAddress:
    """Read a URL. Raises ValueError in words for an operator."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("must be a URL such as redis://HOST:6379") from None
    tls = parts.scheme.startswith("rediss")
    scheme = parts.scheme.replace("rediss", "redis", 1)
    if scheme not in _SCHEMES:
        raise ValueError(
            "must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        )
    mode = _SCHEMES[scheme]
    login, _, place = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    options = _options(parts)
    service, db = _path(mode, parts.path, options) if scheme != "unix" else ("", _db(options))
    socket = unquote(parts.path) if scheme == "unix" else ""
    if scheme == "unix" and (place or len(socket) <= 1):
        raise ValueError("unix:// must be followed by the path of a socket file")
    return RedisAddress(
        mode,
        () if socket else _hosts(place, _SENTINEL_PORT if mode is Mode.SENTINEL else _PORT),
        socket,
        service,
        unquote(user) or None,
        unquote(password) or None,
        db,
        tls,
        options,
    )


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not _OPTIONS.issuperset(options):
        raise ValueError(f"knows no options but {', '.join(sorted(_OPTIONS))}")
    if parts.fragment:
        raise ValueError("has a '#': write %23 for one in a password")
    return options


def _hosts(place: str, port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for each in place.split(","):
        match = _HOST.fullmatch(each)
        if match is None or not 0 < int(match["port"] or port) < 1 << 16:
            raise ValueError("must name HOST:PORT, or several with commas")
        hosts.append((match["name"].strip("[]"), int(match["port"] or port)))
    return tuple(hosts)


def _path(mode: Mode, path: str, options: Mapping[str, str]) -> tuple[str, int]:
    """The service of sentinels, and the number of the database."""
    words = [unquote(word) for word in path.split("/")[1:] if word]
    service = ""
    if mode is Mode.SENTINEL:
        if not words:
            raise ValueError("must name the service that the sentinels watch: .../SERVICE")
        service = words.pop(0)
    if len(words) > 1:
        raise ValueError("has too long a path")
    db = _db({"db": words[0]} if words else options)
    if mode is Mode.CLUSTER and db:
        raise ValueError("names a database, and a cluster has none but 0")
    return service, db


def _db(options: Mapping[str, str]) -> int:
    number = options.get("db", "0")
    if not re.fullmatch(r"\d{1,4}", number):
        raise ValueError("has a database that is no number")
    return int(number)


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
