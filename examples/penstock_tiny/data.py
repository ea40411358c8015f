"""Encode the generated samples and pack whole documents into rows of one length."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from generate import samples
from render import segments
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORT, LONG = 512, 2048
_BATCH = 4000
_OPEN_ROWS = 32

Document = tuple[list[int], list[bool]]


def documents(tokenizer: Tokenizer, seed: int) -> Iterator[Document]:
    """Yield token ids with a flag per token: does the model have to write it?"""
    stream = samples(seed)
    while True:
        batch = [list(segments(s)) for s in itertools.islice(stream, _BATCH)]
        flat = [text for parts in batch for text, _ in parts]
        coded = iter(tokenizer.encode_batch(flat))
        for parts in batch:
            ids: list[int] = []
            flags: list[bool] = []
            for _, learnt in parts:
                piece = next(coded).ids
                ids += piece
                flags += [learnt] * len(piece)
            yield ids, flags


def pack(
    stream: Iterator[Document], rows: int, length: int, pad: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fill rows with whole documents, each going to the fullest open row that still has room."""
    tokens = np.full((rows, length), pad, dtype=np.uint16)
    learnt = np.zeros((rows, length), dtype=np.uint8)
    used = [0] * rows
    open_rows, following = list(range(min(_OPEN_ROWS, rows))), min(_OPEN_ROWS, rows)
    while open_rows:
        ids, flags = next(stream)
        if len(ids) > length:
            continue
        fitting = [r for r in open_rows if used[r] + len(ids) <= length]
        if not fitting:
            fullest = max(open_rows, key=lambda r: used[r])
            open_rows.remove(fullest)
            if following < rows:
                open_rows.append(following)
                following += 1
            continue
        row = max(fitting, key=lambda r: used[r])
        start = used[row]
        tokens[row, start : start + len(ids)] = ids
        learnt[row, start : start + len(ids)] = flags
        used[row] += len(ids)
    return tokens, learnt


def load(
    tokenizer_file: Path, seed: int, total: int, length: int, cache: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Return about `total` packed tokens, from the cache where the same call made one before."""
    rows = total // length
    if cache.exists():
        stored = np.load(cache)
        if int(stored["seed"]) == seed and stored["tokens"].shape == (rows, length):
            return stored["tokens"], stored["learnt"]
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    pad = tokenizer.token_to_id("<|endoftext|>")
    tokens, learnt = pack(documents(tokenizer, seed), rows, length, pad)
    np.savez(cache, tokens=tokens, learnt=learnt, seed=seed)
    return tokens, learnt
