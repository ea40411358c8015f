"""API keys: who may call, and the cache salt that keeps callers' prefixes apart."""

from collections.abc import Iterable
from hashlib import blake2b
from hmac import compare_digest

from gateway.setting_kinds import Secret
from openai_compat.errors import Unauthorized

_SALT_KEY = b"penstock.cache-salt.v1"
_SALT_BYTES = 16
_BEARER, _BARE = b"authorization", b"x-api-key"


class Keyring:
    """The accepted keys. Without any, every caller is the same anonymous one.

    Only digests are kept, so a memory dump of this object holds no key, and comparing digests of
    equal length in constant time over the whole list tells a caller nothing about any of them.
    """

    def __init__(self, keys: Iterable[Secret]) -> None:
        self._digests = tuple(_digest(key.value.encode()) for key in keys)

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return not self._digests

    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The caller's cache salt. Raises Unauthorized without exactly one good key.

        `Authorization: Bearer` is OpenAI's place for it and `x-api-key` Anthropic's; a key is good
        in either, on every route.
        """
        if self.open:
            return b""
        credentials = [header for header in headers if header[0] in (_BEARER, _BARE)]
        if len(credentials) != 1:
            raise Unauthorized(
                "Send one header `Authorization: Bearer <API key>`, or one `x-api-key: <API key>`."
            )
        key = _key(*credentials[0])
        if key is None or not self._knows(key):
            raise Unauthorized("The API key is not valid here.")
        return cache_salt(key)

    def _knows(self, key: bytes) -> bool:
        given = _digest(key)
        # No early exit: the time must not tell which key, if any, matched.
        return sum(compare_digest(given, known) for known in self._digests) > 0


def _key(name: bytes, value: bytes) -> bytes | None:
    if name == _BARE:
        return value.strip()
    scheme, _, key = value.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def cache_salt(key: bytes) -> bytes:
    """The prefix-cache namespace of a key: the same on every replica, and not the key."""
    return blake2b(key, key=_SALT_KEY, digest_size=_SALT_BYTES).digest()


def _digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=32).digest()
