"""The salts of a request in the one field that the message has for them.

    cache_salt                                  a salt alone, as it is
    mark 8 | tokens 4 | n 4 | group's n | own   what is shared besides, numbers little-endian

A worker of before takes all of it for one salt: what it computes is found by nobody else's prompts,
and by fewer of the tenant's own. A salt that begins like the mark is written in the second form.
"""

import struct

from engines.api import SharedPrefix

_MARK = b"\x00shared\x01"
_NUMBERS = struct.Struct("<II")


def written_salts(salt: bytes, shared: SharedPrefix | None) -> bytes:
    """Both in one. Raises ValueError for more tokens than a message has room for."""
    if shared is None and not salt.startswith(_MARK):
        return salt
    group, tokens = (b"", 0) if shared is None else (shared.salt, shared.tokens)
    try:
        numbers = _NUMBERS.pack(tokens, len(group))
    except struct.error as error:
        raise ValueError(f"a shared prefix of {tokens} tokens is out of range") from error
    return _MARK + numbers + group + salt


def read_salts(written: bytes) -> tuple[bytes, SharedPrefix | None]:
    """The salt, and what is shared. Raises ValueError for what is cut off."""
    if not written.startswith(_MARK):
        return written, None
    group_at = len(_MARK) + _NUMBERS.size
    if len(written) < group_at:
        raise ValueError("the salts of a request are cut off")
    tokens, size = _NUMBERS.unpack_from(written, len(_MARK))
    group, own = written[group_at : group_at + size], written[group_at + size :]
    if len(group) < size:
        raise ValueError("the salts of a request are cut off")
    return own, SharedPrefix(group, tokens) if tokens else None
