"""Where the models that ship inside the package lie."""

from __future__ import annotations

from pathlib import Path


def penstock_tiny() -> Path:
    """The folder of `penstock-tiny`, the demo model: weights, tokenizer, template and card."""
    return Path(__file__).parent / "penstock_tiny"
