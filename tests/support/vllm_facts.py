"""The names of an installed vLLM, as a table: python -m tests.support.vllm_facts > TABLE.

Run where vLLM is installed; tests/contract has the table of the version that was run.
"""

import inspect
import json
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

VERSION = "0.32.0"
TABLE = Path(__file__).parents[1] / "contract" / f"vllm_{VERSION}.json"


@cache
def facts() -> dict:
    """The table."""
    return json.loads(TABLE.read_text())


def signature(parameters: list[dict]) -> inspect.Signature:
    """One that real calls can be bound to."""
    return inspect.Signature(
        [
            inspect.Parameter(
                each["name"],
                getattr(inspect.Parameter, each["kind"]),
                default=None if each["optional"] else inspect.Parameter.empty,
            )
            for each in parameters
        ]
    )


def told(package, version: str) -> dict:
    """What the installed package has."""
    from engines.vllm.features import nested_kinds  # noqa: PLC0415

    engine, arguments = package.engine.AsyncLLM, package.arguments.AsyncEngineArgs
    calls = {"generate": engine.generate, "abort": engine.abort}
    calls |= {"from_engine_args": engine.from_engine_args, "shutdown": engine.shutdown}
    calls |= {"tokens_input": package.inputs.tokens_input}
    return {
        "version": version,
        "AsyncEngineArgs": sorted(each.name for each in fields(arguments)),
        "nested": {
            name: sorted(each.name for each in fields(kind) if each.init)
            for name, kind in sorted(nested_kinds(arguments).items())
        },
        "SamplingParams": _names(package.sampling.SamplingParams),
        "StructuredOutputsParams": _names(package.sampling.StructuredOutputsParams),
        "calls": {name: _parameters(call) for name, call in calls.items()},
    }


def _names(kind) -> list[str]:
    return sorted(inspect.signature(kind).parameters)


def _parameters(call) -> list[dict]:
    return [
        {
            "name": each.name,
            "kind": each.kind.name,
            "optional": each.default is not inspect.Parameter.empty,
        }
        for each in inspect.signature(call).parameters.values()
        if each.name != "self"
    ]


def main() -> None:
    from importlib.metadata import version  # noqa: PLC0415

    from engines.vllm.opening import _import  # noqa: PLC0415

    table = told(_import(), version("vllm").partition("+")[0])
    sys.stdout.write(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
