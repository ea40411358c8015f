"""Sets of tokens as packed rows: bit t of a row, low bits first, says whether token t may come."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.int32]


def words(vocab: int) -> int:
    """How many int32 a row takes."""
    return -(-vocab // 32)


def row_of(tokens: Iterable[int], vocab: int) -> Row:
    """A row with these tokens; those outside the vocabulary can never come and are left out."""
    bits = np.zeros(words(vocab) * 32, np.bool_)
    bits[[token for token in tokens if 0 <= token < vocab]] = True
    return np.packbits(bits, bitorder="little").view(np.int32)


def holds(row: Row, token: int) -> bool:
    """Whether a token is in a row."""
    return bool((int(row[token >> 5]) >> (token & 31)) & 1)


def only(row: Row, token: int) -> None:
    """Leave one token of a row."""
    row[:] = 0
    row.view(np.uint8)[token >> 3] = 1 << (token & 7)


def tokens_of(row: Row, vocab: int) -> npt.NDArray[np.int64]:
    """The tokens of a row, ascending."""
    bits = np.unpackbits(row.view(np.uint8), bitorder="little", count=vocab)
    return np.flatnonzero(bits)
