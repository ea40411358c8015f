"""The facts of models, kept beside their graphs: reading them anew imports transformers, seconds.

    <folder>/facts-<digest>.json

Named by what they are read from, so that a changed configuration has other facts.
"""

import json
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from engines.torch.families import ModelFacts, read_facts
from engines.torch.recipe import MODULES, Pooling, Recipe

_READ = "1"  # to be counted up with every change of what is read or how
_SOURCES = ("config.json", "generation_config.json")


def facts_of(path: Path, folder: Path) -> ModelFacts:
    """The facts of the model in a directory. Raises ModelRejected as `read_facts` does, OSError."""
    if (path / MODULES).exists():  # it is declared to make vectors, by more files
        return read_facts(path)
    place = folder / f"facts-{_digest(path)}.json"
    known = _known(place)
    if known is None:
        known = read_facts(path)
        _keep(known, place)
    return known


def known(path: Path, folder: Path) -> bool:
    """Whether `facts_of` would find them."""
    return _known(folder / f"facts-{_digest(path)}.json") is not None


def _digest(path: Path) -> str:
    digest = blake2b(f"{_READ} {version('transformers')}".encode(), digest_size=16)
    for name in _SOURCES:
        file = path / name
        content = file.read_bytes() if file.exists() else b""
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()


def _known(place: Path) -> ModelFacts | None:
    """None where they are not there, or cannot be read: they are read anew then."""
    try:
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        recipe = found["recipe"]
        told = Recipe(**{**recipe, "pooling": Pooling(recipe["pooling"]), "dense": ()})
        return ModelFacts(**{**found, "recipe": told, "eos_ids": tuple(found["eos_ids"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(facts: ModelFacts, place: Path) -> None:
    """Written beside its place and moved there whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=place.parent, prefix=".facts-", delete=False) as file:
        json.dump(asdict(facts), file)
    Path(file.name).rename(place)
