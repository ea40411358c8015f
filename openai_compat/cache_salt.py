"""The prefix-cache namespace of a call: the server's salt, and in it one of the client's own."""

import hashlib
from dataclasses import replace

from openai_compat.fields import Fields, wrong
from openai_compat.served import CallContext

MAX_SALT_CHARS = 1024
_SALT_BYTES = 16


def salted(fields: Fields, call: CallContext) -> CallContext:
    """The call with the client's `cache_salt` mixed into its own.

    The server's salt keys the hash, so no text that a client sends leads to the prefixes of another
    API key. Who asks for a cache of its own shares no system prompt either. Raises
    `RequestRejected`.
    """
    salt = fields.text("cache_salt", MAX_SALT_CHARS)
    if salt is None:
        return call
    if not salt:
        raise wrong(fields.param("cache_salt"), "a string that is not empty", salt)
    mixed = hashlib.blake2b(salt.encode(), key=call.cache_salt, digest_size=_SALT_BYTES)
    return replace(call, cache_salt=mixed.digest(), group_salt=b"")
