"""Opens a vLLM engine from its YAML: the one place that imports `vllm`."""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from engines.errors import EngineUnavailable, ModelRejected
from engines.self_batching.model_facts import read_model_facts
from engines.vllm.calls import Calls
from engines.vllm.config import Config, read_config
from engines.vllm.engine import VllmEngine
from engines.vllm.features import Features, Package, nested_kinds, read_features
from engines.vllm.orphans import Guard
from engines.vllm.sampling import Writer
from engines.vllm.sizes import sizes, vocab_size
from engines.vllm.stats import StatsReader

_ENVIRONMENT: Mapping[str, str] = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",  # that is pickle
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked process would keep the worker's pipes
}
_NEEDED: Mapping[str, tuple[str, str]] = {  # of Package: a module, and what it must have
    "sampling": ("vllm.sampling_params", "SamplingParams"),
    "inputs": ("vllm.inputs", "tokens_input"),
    "arguments": ("vllm.engine.arg_utils", "AsyncEngineArgs"),
    "engine": ("vllm.v1.engine.async_llm", "AsyncLLM"),
}
_LOGS = ("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout is the worker's to speak on


def open_vllm(
    text: str,
    *,
    ends: frozenset[int] = frozenset(),
    on_death: Callable[[BaseException], None] | None = None,
) -> VllmEngine:
    """An engine, loaded but not started. Blocks for a minute or more; `ends`: the tokenizer's.

    Raises ModelRejected for what is wrong with the configuration `text` or the model, and
    EngineUnavailable where its processes do not come up.
    """
    _silence()
    package = _import()
    features = read_features(package)
    config = read_config(text, features)
    facts = read_model_facts(config.model, vocab_size=1)  # its size is told by vLLM
    guard = Guard()
    stats = StatsReader()
    try:
        llm = _load(package, config, features, stats)
    except BaseException:
        guard.release()
        raise
    writer = Writer(
        features=features,
        vocab_size=vocab_size(llm.vllm_config),
        ends=facts.ends | ends,
        grammars=config.takes_grammars,
    )
    calls = Calls(llm, package, guard, by_priority=config.by_priority)
    try:
        size = sizes(llm.vllm_config, config.name, writer)
    except ModelRejected:
        calls.shutdown()
        raise
    return VllmEngine(calls, writer, size, stats, ageing_s=config.own.ageing_s, on_death=on_death)


def _silence() -> None:
    """Nothing is told to anybody, fetched, or written to stdout, in any process of it."""
    os.environ.update(_ENVIRONMENT)  # noqa: TID251 - written, not read
    os.environ.setdefault(*_LOGS)  # noqa: TID251 - the operator may want it elsewhere


def _import() -> Package:
    found = {}
    for field, (module, name) in _NEEDED.items():
        try:
            found[field] = importlib.import_module(module)
        except Exception as error:  # a build that does not fit raises all sorts of things
            raise ModelRejected(
                f"vLLM cannot be imported ({error}): see docs/engines/vllm.md"
            ) from error
        if not hasattr(found[field], name):
            raise ModelRejected(f"this vLLM has no {module}.{name}: it is too old or too new")
    return Package(**found)


def _load(package: Package, config: Config, features: Features, stats: StatsReader) -> Any:
    kinds = package.arguments.AsyncEngineArgs
    nested = nested_kinds(kinds)
    try:
        arguments = {
            key: nested[key](**value) if key in nested and isinstance(value, dict) else value
            for key, value in config.arguments.items()
        }
        opening: dict[str, Any] = {"engine_args": kinds(**arguments)}
        if config.tells_stats and "stat_loggers" in features.opening:
            opening["stat_loggers"] = [lambda *_: stats]
        return package.engine.AsyncLLM.from_engine_args(**opening)
    except (ValueError, TypeError, NotImplementedError, OSError) as error:
        raise ModelRejected(f"vLLM refuses the configuration: {error}") from error
    except RuntimeError as error:
        raise EngineUnavailable(f"vLLM did not come up; its log says why: {error}") from error
