"""Many texts, or pairs of texts, to tokens at once, cut only where the caller asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tokenizers import Encoding

from engines.text.tokenizer import Tokenizer


class Side(StrEnum):
    """Where a text that is too long loses tokens."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Cut:
    """At most `most` tokens, those included that the tokenizer adds, which are never cut."""

    most: int
    side: Side = Side.RIGHT


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of a text, or of a pair of them."""

    tokens: tuple[int, ...]
    second: int = 0  # where tokens of another type begin: the second text of a pair; 0: nowhere


def encode_many(
    inputs: Sequence[str | tuple[str, str]],
    tokenizer: Tokenizer,
    *,
    special: bool = True,
    cut: Cut | None = None,
) -> list[Encoded]:
    """Each input's tokens. Of a pair, only the second text is cut."""
    encodings = tokenizer.encode_batch(inputs, special=special)
    return [
        _encoded(encoding, cut, pair=not isinstance(given, str))
        for given, encoding in zip(inputs, encodings, strict=True)
    ]


def cut_tokens(tokens: Sequence[int], cut: Cut | None) -> tuple[int, ...]:
    """Token ids as a client gave them, cut on one side."""
    if cut is None or len(tokens) <= cut.most:
        return tuple(tokens)
    kept = tokens[: cut.most] if cut.side is Side.RIGHT else tokens[len(tokens) - cut.most :]
    return tuple(kept)


def shortened(texts: Sequence[str], tokenizer: Tokenizer, most: int) -> list[str]:
    """Each text up to the end of its token number `most`."""
    encodings = tokenizer.encode_batch(texts, special=False, spelled=True)
    return [
        text if len(encoding) <= most else text[: _end(encoding, most - 1)]
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def _end(encoding: Encoding, token: int) -> int:
    # `offsets` makes a pair for each of what may be two million tokens, in 0.3 s in one piece.
    return (encoding.token_to_chars(token) or encoding.offsets[token])[1]


def _encoded(encoding: Encoding, cut: Cut | None, *, pair: bool) -> Encoded:
    kept: Sequence[int] = range(len(encoding.ids))
    if cut is not None and len(kept) > cut.most:
        kept = _kept(encoding, cut, 1 if pair else 0)
    ids, types = encoding.ids, encoding.type_ids
    second = next((place for place, at in enumerate(kept) if types[at]), 0)
    return Encoded(tuple([ids[at] for at in kept]), second)


def _kept(encoding: Encoding, cut: Cut, text: int) -> Sequence[int]:
    """Places that stay when a text loses the tokens that are too many, or all it has."""
    sequences = encoding.sequence_ids
    own = [at for at, sequence in enumerate(sequences) if sequence == text]
    gone = min(len(encoding) - cut.most, len(own))
    lost = own[len(own) - gone :] if cut.side is Side.RIGHT else own[:gone]
    # Not by a set: making one of two million holds up every other thread for 0.1 s.
    first, last = (lost[0], lost[-1]) if lost else (0, -1)
    return [
        at for at, sequence in enumerate(sequences) if not first <= at <= last or sequence != text
    ]
