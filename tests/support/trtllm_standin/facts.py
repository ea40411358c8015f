"""The tables of tests/contract: what each supported version of TensorRT-LLM has."""

import inspect
import json
from functools import cache
from pathlib import Path

TABLES = Path(__file__).parents[2] / "contract"
VERSIONS = ("1.2.1", "1.3.0rc29", "1.4.0rc1")


class NotInVersion(AssertionError):  # noqa: N818
    """Something was used that the version does not have, or has deprecated."""


@cache
def facts(version: str) -> dict:
    """The table of a version."""
    return json.loads((TABLES / f"trtllm_{version}.json").read_text())


def signature(parameters: list[dict]) -> inspect.Signature:
    """A signature that real calls can be bound to."""
    return inspect.Signature(
        [
            inspect.Parameter(
                each["name"],
                getattr(inspect.Parameter, each["kind"]),
                default=each.get("default", inspect.Parameter.empty),
            )
            for each in parameters
        ]
    )


def check_names(used, fields: dict, where: str) -> None:
    """Raise for names that are not there, or are on their way out."""
    for name in used:
        if name not in fields:
            raise NotInVersion(f"{where} has no {name}")
        status = fields[name]
        if (status if isinstance(status, str) else status["status"]) in {"deprecated", "private"}:
            raise NotInVersion(f"{name} of {where} is deprecated or private")
