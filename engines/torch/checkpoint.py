"""The weight files of a model directory, checked before anything is loaded.

Only safetensors are read: other formats can hold code. A truncated shard is found here, by its
header, so that the error names the file and comes before minutes of loading.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from engines.errors import ModelRejected

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def check_weights(path: Path) -> tuple[Path, ...]:
    """The weight files of a directory, every one complete.

    Raises ModelRejected naming the file that is missing, truncated or not safetensors.
    """
    if (path / SINGLE).exists():
        expected = {SINGLE: set[str]()}
    elif (path / INDEX).exists():
        expected = _read_index(path / INDEX)
    else:
        others = sorted(p.name for s in ("*.bin", "*.pt", "*.pth", "*.gguf") for p in path.glob(s))
        found = f"; found {', '.join(others)}, which are not loaded" if others else ""
        raise ModelRejected(f"no {SINGLE} or {INDEX} in {path}{found}: only safetensors are read")
    for name, tensors in expected.items():
        _check_shard(path / name, tensors)
    return tuple(path / name for name in sorted(expected))


def _read_index(path: Path) -> dict[str, set[str]]:
    """File name -> the tensors it must hold."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["weight_map"].items()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelRejected(f"{path} is not a safetensors index: {error!r}") from error
    shards: dict[str, set[str]] = {}
    for tensor, name in entries:
        # A name with a directory in it could point anywhere on the disk.
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelRejected(f"{path} names the shard {name!r}, which is not a plain file name")
        shards.setdefault(name, set()).add(tensor)
    return shards


def _check_shard(path: Path, tensors: set[str]) -> None:
    if not path.exists():
        raise ModelRejected(f"shard {path.name} is missing from {path.parent}")
    try:
        with safe_open(path, framework="numpy") as shard:
            missing = tensors - set(shard.keys())
    except (OSError, SafetensorError) as error:
        raise ModelRejected(f"{path} is truncated or not safetensors: {error}") from error
    if missing:
        raise ModelRejected(f"{path} lacks {len(missing)} tensors, among them {min(missing)}")
