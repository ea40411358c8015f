"""Tokens to text as they come: the joined pieces equal the decode of all tokens at once.

Two ways, chosen by the tokenizer: byte-level vocabularies look bytes up in a table; every other
decoder is asked to decode a short window. Neither ever gives half a character.
"""

import codecs
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol

_REPLACEMENT = "\ufffd"
_MAX_OPEN = 4  # no character needs more tokens than it has bytes


class Detokenizer(Protocol):
    """Feed tokens in order, then finish. Feeding may go on after it: the text was cut there."""

    def feed(self, tokens: Sequence[int]) -> str:
        """The text that became certain with these tokens; may be empty."""

    def finish(self) -> str:
        """The text still held back: what an unfinished character decodes to."""


class ByteLevelDetokenizer:
    """Table lookups: about 0.1 us a token when it is whole characters, as nearly all are."""

    __slots__ = ("_bytes", "_rest", "_texts")

    def __init__(self, table: Sequence[bytes], texts: Sequence[str | None]) -> None:
        self._bytes = table
        self._texts = texts
        self._rest = b""  # part of a character

    def feed(self, tokens: Sequence[int]) -> str:
        if len(tokens) == 1 and not self._rest and tokens[0] < len(self._texts):
            text = self._texts[tokens[0]]
            if text is not None:
                return text
        table = self._bytes
        size = len(table)  # a model may know more ids than its tokenizer: they spell nothing
        raw = self._rest + b"".join([table[token] for token in tokens if token < size])
        text, used = codecs.utf_8_decode(raw, "replace", False)  # noqa: FBT003 - C signature
        self._rest = raw[used:]
        return text

    def finish(self) -> str:
        rest, self._rest = self._rest, b""
        return rest.decode(errors="replace")


class WindowDetokenizer:
    """Decodes a window of recent tokens twice and gives the difference.

        settled        open
        a b c          d e        the text of `settled` is out; `open` is not yet certain
        decode(settled) | decode(settled + open)   -> the difference, once nothing may change it

    `settled` is the last group that gave text, so a decoder that strips the first space or joins
    words sees a neighbour. A run of byte-fallback tokens stays open until it ends: such decoders
    turn a whole run into U+FFFD when any part of it is invalid, so no part is certain before.
    Until then nothing is decoded, which keeps the work linear.
    """

    __slots__ = ("_decode", "_fallback", "_open", "_settled", "_settled_text", "_spelled")

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        spelled: Container[int],
        fallback: Mapping[int, int],
        context: Sequence[int] = (),
    ) -> None:
        self._decode = decode
        self._spelled = spelled
        self._fallback = fallback
        self._settled = list(context)
        self._settled_text = decode(self._settled) if context else ""
        self._open: list[int] = []

    def feed(self, tokens: Sequence[int]) -> str:
        return "".join([self._feed_one(token) for token in tokens if token in self._spelled])

    def finish(self) -> str:
        return self._settle(self._decode(self._settled + self._open)) if self._open else ""

    def _feed_one(self, token: int) -> str:
        self._open.append(token)
        if token in self._fallback:
            return ""
        text = self._decode(self._settled + self._open)
        if text.endswith(_REPLACEMENT) and len(self._open) < _MAX_OPEN:
            return ""
        return self._settle(text)

    def _settle(self, text: str) -> str:
        new = text[len(self._settled_text) :]
        if new:
            self._settled = self._open
            self._settled_text = self._decode(self._settled)
        else:  # nothing to see yet (a stripped space, say): it still shapes what follows
            self._settled = self._settled + self._open
            self._settled_text = text
        self._open = []
        return new


class SpellingDetokenizer:
    """Spells out some special tokens, and leaves the text between them to another decoder.

    A special token ends what was open before it: no character reaches across.
    """

    __slots__ = ("_decoder", "_texts")

    def __init__(self, decoder: Detokenizer, texts: Mapping[int, str]) -> None:
        self._decoder = decoder
        self._texts = texts

    def feed(self, tokens: Sequence[int]) -> str:
        if not any(token in self._texts for token in tokens):
            return self._decoder.feed(tokens)
        return "".join([self._feed_one(token) for token in tokens])

    def finish(self) -> str:
        return self._decoder.finish()

    def _feed_one(self, token: int) -> str:
        spelled = self._texts.get(token)
        # What was open is settled, and the decoder goes on with its neighbours in mind.
        return self._decoder.feed((token,)) if spelled is None else self._decoder.finish() + spelled
