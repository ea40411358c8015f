"""Reading the small text files of a model directory; every refusal names the file."""

import json
from pathlib import Path

from engines.errors import ModelRejected


def read_text(path: Path) -> str:
    """The file as UTF-8 text. Raises `ModelRejected` when it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelRejected(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelRejected(f"{path} cannot be read: {error}") from error


def read_object(path: Path, *, required: bool) -> dict[str, object]:
    """The JSON object in a file; `{}` for a missing file that is not required."""
    if not required and not path.exists():
        return {}
    value = _parsed(path)
    if not isinstance(value, dict):
        raise ModelRejected(f"{path} must hold a JSON object")
    return value


def read_list(path: Path) -> list[object]:
    """The JSON array in a file, which must be there."""
    value = _parsed(path)
    if not isinstance(value, list):
        raise ModelRejected(f"{path} must hold a JSON array")
    return value


def _parsed(path: Path) -> object:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise ModelRejected(f"{path} is not valid JSON: {error}") from error
    except RecursionError:
        raise ModelRejected(f"{path} is nested too deeply") from None
