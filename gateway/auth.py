"""API keys: who may call, whose calls are kept apart, and what each may have."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b, sha256
from hmac import compare_digest

from gateway.limits import UNLIMITED, Quota
from openai_compat.errors import Unauthorized

_SALT_KEY, _TENANT_KEY = b"penstock.cache-salt.v1", b"penstock.tenant.v1"
_GROUP_KEY = b"penstock.prompt-group.v1"
_DERIVED_BYTES = 16
_BEARER, _BARE = b"authorization", b"x-api-key"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that is accepted, by its SHA-256: what is kept lets nobody in."""

    digest: bytes
    name: str = ""  # for the log
    weight: float = 1.0  # of its tenant where others wait, too
    quota: Quota = UNLIMITED
    prompt_group: str = ""  # those of one share their system prompts' cache


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is from. Salt and tenant are the same on every replica, and not the key."""

    salt: bytes = b""  # prefixes are shared only within one
    tenant: bytes = b""
    name: str = ""
    weight: float = 1.0
    quota: Quota = UNLIMITED
    group_salt: bytes = b""  # of what is shared with other keys; empty: nothing is


ANYBODY = Caller()


class Keyring:
    """The accepted keys. Without any, every caller is the same anonymous one."""

    def __init__(self, keys: Iterable[KnownKey], *, anonymous: Quota = UNLIMITED) -> None:
        self._known = {key.digest: key for key in keys}
        self._anonymous = Caller(quota=anonymous)

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return not self._known

    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Who calls. Raises Unauthorized without exactly one good key.

        `Authorization: Bearer` is OpenAI's place for it and `x-api-key` Anthropic's; a key is good
        in either, on every route.
        """
        if self.open:
            return self._anonymous
        credentials = [header for header in headers if header[0] in (_BEARER, _BARE)]
        if len(credentials) != 1:
            raise Unauthorized(
                "Send one header `Authorization: Bearer <API key>`, or one `x-api-key: <API key>`."
            )
        key = _key(*credentials[0])
        known = None if key is None else self._find(key)
        if key is None or known is None:
            raise Unauthorized("The API key is not valid here.")
        return Caller(
            cache_salt(key),
            tenant_id(key),
            known.name,
            known.weight,
            known.quota,
            group_salt(known.prompt_group),
        )

    def _find(self, key: bytes) -> KnownKey | None:
        given = digest_of(key)
        # What a look-up tells by its time is of the digest, which nobody can choose.
        known = self._known.get(given)
        return known if known is not None and compare_digest(given, known.digest) else None


def _key(name: bytes, value: bytes) -> bytes | None:
    if name == _BARE:
        return value.strip()
    scheme, _, key = value.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def cache_salt(key: bytes) -> bytes:
    """The prefix-cache namespace of a key."""
    return blake2b(key, key=_SALT_KEY, digest_size=_DERIVED_BYTES).digest()


def group_salt(group: str) -> bytes:
    """The namespace of the system prompts that a group shares: no key has it, and no client."""
    if not group:
        return b""
    return blake2b(group.encode(), key=_GROUP_KEY, digest_size=_DERIVED_BYTES).digest()


def tenant_id(key: bytes) -> bytes:
    """What stands for a key in lines and counters."""
    return blake2b(key, key=_TENANT_KEY, digest_size=_DERIVED_BYTES).digest()


def digest_of(key: bytes) -> bytes:
    """What is kept of a key, as `sha256sum` gives it."""
    return sha256(key).digest()
