"""Parsers of setting values: one `Kind` per shape, the same for flags, environment and YAML."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.redis.address import parse_address

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
_SCALE = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
ANY_ORIGIN = "*"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@,*]+|\*")
_HOST = re.compile(r"(\*\.)?[a-z0-9_-][a-z0-9_.-]*|[0-9a-f]*:[0-9a-f:.]+")
_ADDRESS = re.compile(r"unix:/[^\0]+|([^\s:/]+|\[[0-9a-fA-F:]+\]):\d{1,5}")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a raw value becomes a setting. `parse` raises ValueError with words for an operator."""

    parse: Callable[[object], object]
    metavar: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that no repr, str or log ever shows."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return "***"


def number(low: int, high: int) -> Kind:
    """A whole number in [low, high]."""

    def parse(raw: object) -> int:
        if isinstance(raw, bool) or not re.fullmatch(r"-?\d{1,18}", str(raw).strip()):
            raise ValueError("must be a whole number")
        return int(_within(int(str(raw)), low, high))

    return Kind(parse, "N")


def seconds(low: float, high: float) -> Kind:
    """A finite duration in [low, high] seconds."""

    def parse(raw: object) -> float:
        if isinstance(raw, bool):
            raise ValueError("must be a number of seconds")  # noqa: TRY004 - one error type here
        try:
            value = float(str(raw))
        except ValueError:
            raise ValueError("must be a number of seconds") from None
        if not math.isfinite(value):
            raise ValueError("must be a finite number of seconds")
        return _within(value, low, high)

    return Kind(parse, "SECONDS")


def byte_count(low: int = 0) -> Kind:
    """A size: bytes, or with a binary unit as in 512MiB or 4G."""

    def parse(raw: object) -> int:
        match = None if isinstance(raw, bool) else _SIZE.fullmatch(str(raw).strip())
        if match is None:
            raise ValueError("must be a size such as 4GiB, 512MiB or 1048576")
        return int(_within(int(float(match[1]) * _SCALE[match[2].upper()]), low, 1 << 50))

    return Kind(parse, "SIZE")


def choice(*allowed: str, metavar: str = "") -> Kind:
    """One of a closed set of words; `metavar` stands for them where they are many."""

    def parse(raw: object) -> str:
        word = _text(raw)
        if word not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return word

    return Kind(parse, metavar or "|".join(allowed))


def device_name() -> Kind:
    """auto, cpu, cuda or one GPU by number."""

    def parse(raw: object) -> str:
        word = _text(raw)
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", word):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return word

    return Kind(parse, "DEVICE")


def host_name() -> Kind:
    """An address or a name."""

    def parse(raw: object) -> str:
        word = _text(raw).strip()
        if not word:
            raise ValueError("must not be empty")
        return word

    return Kind(parse, "HOST")


def flag() -> Kind:
    """A yes or no."""

    def parse(raw: object) -> bool:
        word = str(raw).lower()
        if word not in _TRUE + _FALSE:
            raise ValueError("must be true or false")
        return word in _TRUE

    return Kind(parse, "BOOL")


def path() -> Kind:
    """A path of this machine; empty is refused, so a blank variable is not the current folder."""

    def parse(raw: object) -> Path:
        if not _text(raw):
            raise ValueError("must be a path")
        return Path(_text(raw)).expanduser()

    return Kind(parse, "PATH")


def texts() -> Kind:
    """One or several words: a list, or separated by commas."""
    return Kind(_words, "NAME", many=True)


def origins() -> Kind:
    """One or several origins of web pages as browsers name them, or * for all."""
    return _named(_ORIGIN, "ORIGIN", "must be as https://chat.example.com, without a path, or *")


def host_names() -> Kind:
    """One or several names of this server, without a port; *.example.com for all below one."""
    return _named(_HOST, "HOST", "must be a name without a port, or *. and a name")


def _named(shape: re.Pattern[str], metavar: str, wanted: str) -> Kind:
    def parse(raw: object) -> tuple[str, ...]:
        words = tuple(word.lower() for word in _words(raw))
        if not all(shape.fullmatch(word) for word in words):
            raise ValueError(wanted)
        return words

    return Kind(parse, metavar, many=True)


def worker_address() -> Kind:
    """Where a worker is reached: HOST:PORT, or unix:PATH."""
    return Kind(_address, "ADDRESS")


def worker_addresses() -> Kind:
    """One or several of them."""
    return Kind(lambda raw: tuple(map(_address, _words(raw))), "ADDRESS", many=True)


def _address(raw: object) -> str:
    word = _text(raw)
    if not _ADDRESS.fullmatch(word):
        raise ValueError("must be HOST:PORT or unix:PATH")
    return word


def secret() -> Kind:
    """One secret of 16 characters or more."""

    def parse(raw: object) -> Secret:
        word = _text(raw)
        if not re.fullmatch(r"[!-~]{16,}", word):
            raise ValueError("must be 16 or more printable ASCII characters without spaces")
        return Secret(word)

    return Kind(parse, "SECRET")


def redis_url() -> Kind:
    """Where Redis is; a secret, since it may hold a password."""

    def parse(raw: object) -> Secret:
        word = _text(raw)
        parse_address(word)
        return Secret(word)

    return Kind(parse, "URL")


def secrets() -> Kind:
    """One or several secrets: a list, or separated by commas."""

    def parse(raw: object) -> tuple[Secret, ...]:
        words = _words(raw)
        if any(not word.isascii() or not word.isprintable() or " " in word for word in words):
            raise ValueError("a key holds printable ASCII without spaces")
        return tuple(Secret(word) for word in words)

    return Kind(parse, "KEY", many=True)


def _words(raw: object) -> tuple[str, ...]:
    parts = raw if isinstance(raw, list | tuple) else _text(raw).split(",")
    words = tuple(_text(part).strip() for part in parts)
    if not words or not all(words):
        raise ValueError("must not be empty")
    return words


def _text(raw: object) -> str:
    """What YAML reads as another type is never taken as text: null would be the key 'None'."""
    if not isinstance(raw, str):
        raise ValueError("must be text; quote it")  # noqa: TRY004 - one error type here
    return raw


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"must be between {low} and {high}, not {value}")
    return value
