"""What an engine must know of a checkpoint before it runs: its vocabulary and how answers end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import ModelRejected


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Read from config.json and generation_config.json."""

    vocab_size: int
    ends: frozenset[int]


def read_model_facts(model: Path, vocab_size: int | None = None) -> ModelFacts:
    """Raises ModelRejected where the size of the vocabulary is neither written nor given."""
    config = _read(model / "config.json")
    inner = config.get("text_config") or {}
    size = vocab_size or config.get("vocab_size") or inner.get("vocab_size")
    if not size:
        raise ModelRejected(f"{model} does not tell vocab_size: set penstock.vocab_size")
    ends = _read(model / "generation_config.json").get("eos_token_id")
    for part in (config, inner):
        ends = part.get("eos_token_id") if ends is None else ends
    many = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return ModelFacts(int(size), frozenset(int(end) for end in many))


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRejected(f"{path.name} cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise ModelRejected(f"{path.name} is not an object")
    return read
