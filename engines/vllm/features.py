"""What the installed vLLM accepts, read from its signatures and never from its version."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Package:
    """The modules of an installed vLLM that are used."""

    sampling: ModuleType  # vllm.sampling_params
    inputs: ModuleType  # vllm.inputs
    arguments: ModuleType  # vllm.engine.arg_utils
    engine: ModuleType  # vllm.v1.engine.async_llm


@dataclass(frozen=True, slots=True)
class Features:
    """Names that may be passed, by what takes them."""

    arguments: frozenset[str]  # AsyncEngineArgs
    sampling: frozenset[str]  # SamplingParams
    guides: frozenset[str]  # StructuredOutputsParams
    call: frozenset[str]  # AsyncLLM.generate
    opening: frozenset[str]  # AsyncLLM.from_engine_args
    salts: bool  # a prompt of tokens has a cache_salt


def read_features(package: Package) -> Features:
    """The names of the installed package."""
    guides = getattr(package.sampling, "StructuredOutputsParams", None)
    engine = package.engine.AsyncLLM
    return Features(
        arguments=frozenset(each.name for each in fields(package.arguments.AsyncEngineArgs)),
        sampling=_parameters(package.sampling.SamplingParams),
        guides=frozenset() if guides is None else _parameters(guides),
        call=_parameters(engine.generate),
        opening=_parameters(engine.from_engine_args),
        salts="cache_salt" in _parameters(package.inputs.tokens_input),
    )


def nested_kinds(arguments: type) -> dict[str, Callable[..., Any]]:
    """The arguments that are configurations themselves, and what makes one of its keys."""
    kinds: dict[str, Callable[..., Any]] = {}
    for each in fields(arguments):
        kind: object = each.default_factory
        if isinstance(kind, type) and is_dataclass(kind):
            kinds[each.name] = kind
    return kinds


def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters) - {"self"}
