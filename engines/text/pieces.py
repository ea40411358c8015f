"""What each token of a vocabulary spells, as bytes: byte-level alphabets and byte-fallback names.

A byte-level vocabulary writes every byte as one printable character (GPT-2's alphabet): the 188
printable Latin-1 bytes stand for themselves, the other 68 are moved to U+0100 and up. A
sentencepiece vocabulary writes a byte without a piece of its own as `<0xE2>`.
"""

import re
from collections.abc import Iterable, Mapping

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_MOVED = tuple(byte for byte in range(256) if byte not in _PRINTABLE)
_OUTSIDE = "\uffff"  # not in Latin-1, so a piece holding it cannot be encoded below

# Character of the alphabet -> the byte it stands for, as a Latin-1 character. The moved bytes'
# own characters are outside of the alphabet and must not pass for themselves.
_ALPHABET = {chr(0x100 + place): chr(byte) for place, byte in enumerate(_MOVED)} | {
    chr(byte): _OUTSIDE for byte in _MOVED
}
_TO_LATIN1 = str.maketrans(_ALPHABET)
_BYTE_NAME = re.compile(r"<0x([0-9A-F]{2})>")


def byte_level_table(vocabulary: Mapping[str, int], skipped: Iterable[int]) -> list[bytes]:
    """Token id -> the bytes it adds to a decode; empty for skipped ids and holes."""
    table = [b""] * (1 + max(vocabulary.values(), default=-1))
    for piece, token in vocabulary.items():
        table[token] = byte_level_bytes(piece)
    for token in skipped:
        table[token] = b""
    return table


def byte_level_bytes(piece: str) -> bytes:
    """The bytes a byte-level piece spells; a piece outside of the alphabet is its own UTF-8."""
    try:
        return piece.translate(_TO_LATIN1).encode("latin-1")
    except UnicodeEncodeError:
        return piece.encode()


def fallback_byte(piece: str) -> int | None:
    """The byte a byte-fallback piece such as `<0xE2>` names, or None for ordinary pieces."""
    match = _BYTE_NAME.fullmatch(piece)
    return int(match[1], 16) if match else None
