"""Texts in tokens of the bundled model: chats of its domain, and what people wrote here."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from engines.bundled import penstock_tiny

ROOT = Path(__file__).parents[2]
_SEED = 20_261_124

# Its generator, on the side kept out of its training: texts, and whether it writes them.
_CHATS = f"""
import json, itertools
from generate import samples
from render import segments
for sample in itertools.islice(samples({_SEED}, held_out=True), 110):
    print(json.dumps(list(segments(sample))))
"""


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(penstock_tiny() / "tokenizer.json"))


@cache
def prose() -> list[int]:
    """This repository's decision records, one after another."""
    files = sorted((ROOT / "docs" / "adr").glob("*.md"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return _tokenizer().encode(text).ids


def windows(tokens: list[int], *, count: int, length: int) -> list[list[int]]:
    """So many pieces of so many tokens, one after another."""
    if count * length > len(tokens):
        raise ValueError(f"there are {len(tokens)} tokens of text")
    return [tokens[first : first + length] for first in range(0, count * length, length)]


@cache
def chats() -> list[tuple[list[int], np.ndarray]]:
    """Chats that it was not trained on, and after which of their tokens it writes the next one."""
    command = [sys.executable, "-c", _CHATS]
    folder = ROOT / "examples" / "penstock_tiny"
    printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    found = []
    for line in printed.splitlines():
        tokens, written = [], []
        for text, own in json.loads(line):
            piece = _tokenizer().encode(text).ids
            tokens += piece
            written += [own] * len(piece)
        found.append((tokens, np.array([*written[1:], False])))
    return found
