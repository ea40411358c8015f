"""The API keys of the settings: those given flat, and those of a file with limits of their own.

    keys:
      - name: batch
        digest: 5e884898da28047151d0e56f8dc6292773603d0d6aabbd62a11ef721d1542d8   # or `key: sk-...`
        weight: 0.5
        tokens_per_minute: 100000
        max_concurrent: 8
        prompt_group: support   # shares cached system prompts with the keys of the same group

JSON is YAML as well. `KeyFileError` is the only failure: it names the entry, and never shows a key.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.auth import KnownKey, digest_of
from gateway.limits import Quota
from gateway.settings import Settings

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_KEY = re.compile(r"[!-~]+")
_FIELDS = frozenset(
    {"name", "key", "digest", "weight", "tokens_per_minute", "max_concurrent", "prompt_group"}
)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST = 1_000_000_000


class KeyFileError(ValueError):
    """The file cannot be read, or says what cannot be."""


def known_keys(settings: Settings) -> tuple[KnownKey, ...]:
    """Every accepted key. Raises KeyFileError."""
    quota = default_quota(settings)
    flat = [KnownKey(digest_of(key.value.encode()), quota=quota) for key in settings.api_key]
    file = settings.api_key_file
    keys = (*flat, *(() if file is None else _read(file, quota)))
    if len({key.digest for key in keys}) < len(keys):
        raise KeyFileError("the same key is given twice")
    return keys


def default_quota(settings: Settings) -> Quota:
    """What a key without limits of its own may have."""
    return Quota(settings.key_tokens_per_minute, settings.key_max_concurrent)


def _read(path: Path, quota: Quota) -> list[KnownKey]:
    import yaml  # noqa: PLC0415 - 25 ms that a start without a file does not pay

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError):  # which would show the line
        raise KeyFileError(f"{path} is not valid YAML") from None
    entries = document.get("keys") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(entries, list) or not entries:
        raise KeyFileError(f"{path} must hold `keys:` and a list of them")
    keys = [_entry(f"{path}: key {place}", entry, quota) for place, entry in enumerate(entries, 1)]
    if len({key.name for key in keys}) < len(keys):
        raise KeyFileError(f"{path}: two keys have the same name")
    return keys


def _entry(place: str, entry: Any, quota: Quota) -> KnownKey:
    if not isinstance(entry, Mapping):
        raise KeyFileError(f"{place} must hold `name: value` lines")
    if unknown := sorted(map(str, entry.keys() - _FIELDS)):
        raise KeyFileError(f"{place} has unknown fields: {', '.join(unknown)}")
    name, weight = entry.get("name"), entry.get("weight", 1.0)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise KeyFileError(f"{place} needs a name of letters, digits, dots and dashes")
    place = f"{place} ({name})"
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.01 <= weight <= 100:
        raise KeyFileError(f"{place}: weight must be a number between 0.01 and 100")
    return KnownKey(
        _digest(place, entry),
        name,
        float(weight),
        Quota(
            _count(place, entry, "tokens_per_minute", quota.tokens_per_minute),
            _count(place, entry, "max_concurrent", quota.max_concurrent),
        ),
        _group(place, entry),
    )


def _group(place: str, entry: Mapping[str, object]) -> str:
    group = entry.get("prompt_group")
    if group is None and "prompt_group" not in entry:
        return ""
    if not isinstance(group, str) or not _NAME.fullmatch(group):
        raise KeyFileError(f"{place}: prompt_group must be of letters, digits, dots and dashes")
    return group


def _digest(place: str, entry: Mapping[str, object]) -> bytes:
    """Of the key, or as given. What YAML reads as another type is never taken as text."""
    match entry.get("key"), entry.get("digest"):
        case str(key), None if _KEY.fullmatch(key):
            return digest_of(key.encode())
        case None, str(digest) if found := _DIGEST.fullmatch(digest):
            return bytes.fromhex(found[1])
    raise KeyFileError(
        f"{place} needs either `key`, printable ASCII without spaces, or `digest`, the 64"
        " hexadecimal digits that sha256sum gives; quote them"
    )


def _count(place: str, entry: Mapping[str, object], name: str, default: int) -> int:
    value = entry.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise KeyFileError(f"{place}: {name} must be a whole number up to {_MOST}; 0: unlimited")
    return value
