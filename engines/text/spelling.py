"""How the tokens of one vocabulary spell text: the detokenizer they need, and each token's bytes.

Two kinds, told apart by the decoder of tokenizer.json: byte-level vocabularies, and all others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from engines.text.detokenizer import ByteLevelDetokenizer, Detokenizer, WindowDetokenizer
from engines.text.pieces import byte_level_bytes, byte_level_table, fallback_byte

_REPLACEMENT = "\ufffd"


class Spelling(Protocol):
    """What a tokenizer needs to know of its vocabulary to turn tokens into text."""

    def detokenizer(self, after: Sequence[int]) -> Detokenizer:
        """A fresh incremental decoder for text that goes on from the tokens `after`."""

    def token_bytes(self, token: int, piece: str) -> bytes:
        """The bytes one ordinary token adds in the middle of a text."""


class ByteLevelSpelling:
    """Every token is a fixed run of bytes, wherever it stands."""

    def __init__(self, vocabulary: Mapping[str, int], specials: frozenset[int]) -> None:
        self._bytes = byte_level_table(vocabulary, specials)
        self._texts = _whole_texts(self._bytes)

    def detokenizer(self, after: Sequence[int]) -> Detokenizer:  # noqa: ARG002 - bytes are bytes
        return ByteLevelDetokenizer(self._bytes, self._texts)

    def token_bytes(self, token: int, piece: str) -> bytes:  # noqa: ARG002
        return byte_level_bytes(piece)


class ContextualSpelling:
    """What a token spells depends on its neighbours, so the backend's own decoder is asked."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        vocabulary: Mapping[str, int],
        specials: frozenset[int],
    ) -> None:
        self._decode = decode
        self._spelled = frozenset(vocabulary.values()) - specials
        self._fallback = _fallback_bytes(vocabulary)

    def detokenizer(self, after: Sequence[int]) -> Detokenizer:
        return WindowDetokenizer(
            self._decode, self._spelled, self._fallback, self._neighbour(after)
        )

    def token_bytes(self, token: int, piece: str) -> bytes:  # noqa: ARG002
        if token in self._fallback:
            return bytes([self._fallback[token]])
        # Decoders may strip the very first space, so the token is decoded twice in a row.
        once, twice = self._decode([token]), self._decode([token, token])
        return twice[len(once) :].encode()

    def _neighbour(self, after: Sequence[int]) -> list[int]:
        """The last token that spells text: enough to tell a decoder that the text goes on."""
        for token in reversed(after):
            if token in self._spelled and token not in self._fallback:
                return [token]
        return []


def _whole_texts(table: Sequence[bytes]) -> list[str | None]:
    """The text of each token that is whole characters, None where it holds part of one."""
    texts: list[str | None] = []
    for piece in table:
        text = piece.decode(errors="replace")
        # A piece that really spells U+FFFD takes the slow way too, and comes out the same.
        texts.append(None if _REPLACEMENT in text else text)
    return texts


def _fallback_bytes(vocabulary: Mapping[str, int]) -> dict[int, int]:
    """Token id -> byte for the `<0xE2>` pieces of a byte-fallback vocabulary."""
    named = ((token, fallback_byte(piece)) for piece, token in vocabulary.items())
    return {token: byte for token, byte in named if byte is not None}
