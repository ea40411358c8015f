"""API keys: who may call, and the cache salt that keeps callers' prefixes apart."""

from collections.abc import Iterable
from hashlib import blake2b
from hmac import compare_digest

from gateway.setting_kinds import Secret
from openai_compat.errors import Unauthorized

_SALT_KEY = b"penstock.cache-salt.v1"
_SALT_BYTES = 16


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
        """The caller's cache salt. Raises Unauthorized without exactly one good bearer key."""
        if self.open:
            return b""
        credentials = [value for name, value in headers if name == b"authorization"]
        if len(credentials) != 1:
            raise Unauthorized("Send one header `Authorization: Bearer <API key>`.")
        scheme, _, key = credentials[0].partition(b" ")
        if scheme.lower() != b"bearer" or not self._knows(key.strip()):
            raise Unauthorized("The API key is not valid here.")
        return cache_salt(key.strip())

    def _knows(self, key: bytes) -> bool:
        given = _digest(key)
        # No early exit: the time must not tell which key, if any, matched.
        return sum(compare_digest(given, known) for known in self._digests) > 0


def cache_salt(key: bytes) -> bytes:
    """The prefix-cache namespace of a key: the same on every replica, and not the key."""
    return blake2b(key, key=_SALT_KEY, digest_size=_SALT_BYTES).digest()


def _digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=32).digest()
