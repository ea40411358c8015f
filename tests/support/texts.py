"""Text that people wrote, in tokens of the bundled model: this repository's decision records."""

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from engines.bundled import penstock_tiny

_RECORDS = Path(__file__).parents[2] / "docs" / "adr"


@cache
def _tokens() -> list[int]:
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(_RECORDS.glob("*.md")))
    return Tokenizer.from_file(str(penstock_tiny() / "tokenizer.json")).encode(text).ids


def bundled_windows(*, count: int, length: int) -> list[list[int]]:
    """So many pieces of so many tokens, one after another, from the first record on."""
    tokens = _tokens()
    if count * length > len(tokens):
        raise ValueError(f"there are {len(tokens)} tokens of text")
    return [tokens[first : first + length] for first in range(0, count * length, length)]
