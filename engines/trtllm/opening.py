"""Opens a TensorRT-LLM engine from its YAML: the one place that imports `tensorrt_llm`."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engines.errors import ModelRejected
from engines.self_batching.model_facts import read_model_facts
from engines.trtllm.calls import Calls
from engines.trtllm.config import Config, read_config
from engines.trtllm.engine import TrtLlmEngine
from engines.trtllm.events import EventMirror
from engines.trtllm.features import read_features
from engines.trtllm.sampling import Writer
from engines.trtllm.sizes import sizes
from engines.trtllm.special import Specials
from engines.trtllm.watch import Watch
from kvcache.naming import namespace


def open_trtllm(
    text: str,
    *,
    on_death: Callable[[BaseException], None] | None = None,
) -> TrtLlmEngine:
    """An engine, loaded but not started. Blocks for minutes; call it from the main thread.

    Raises ModelRejected for what is wrong with the configuration `text` or the model.
    """
    try:
        package = importlib.import_module("tensorrt_llm")
        llmapi = importlib.import_module("tensorrt_llm.llmapi")
    except ImportError as error:
        raise ModelRejected(
            f"TensorRT-LLM cannot be imported ({error}): run in NVIDIA's container"
        ) from error
    features = read_features(package, llmapi)
    config = read_config(text, features)
    facts = read_model_facts(Path(config.model), config.own.vocab_size)
    try:
        llm = package.LLM(**_arguments(config, llmapi))
    except (ValueError, TypeError) as error:
        raise ModelRejected(f"TensorRT-LLM refuses the configuration: {error}") from error
    writer = Writer(
        features=features,
        vocab_size=facts.vocab_size,
        ends=facts.ends,
        applies=config.own.sampler_applies,
        grammars=config.takes_grammars,
        thinks=bool(config.arguments.get("reasoning_parser")),
        specials=Specials(config.extras(features), features.phases, config.own.context_hosts),
    )
    calls = Calls(llm, package, llmapi, features, _adapters(config.own.adapters, llmapi))
    name, size = sizes(config, writer, 1)[0].model, config.block_size
    watch = Watch(
        calls,
        EventMirror(namespace(name.encode(), str(size).encode(), turns=False), size),
        events=config.tells_events,
        stats=config.tells_stats,
    )
    return TrtLlmEngine(calls, config, writer, watch, on_death=on_death)


def _adapters(paths: Mapping[str, str], llmapi: Any) -> Mapping[str, Any]:
    """A LoRARequest for each; its number is its place among the sorted names, from 1."""
    return {
        name: llmapi.LoRARequest(lora_name=name, lora_int_id=number, lora_path=paths[name])
        for number, name in enumerate(sorted(paths), start=1)
    }


def _arguments(config: Config, llmapi: Any) -> Mapping[str, Any]:
    """The arguments of `LLM`, the two nested parts as objects of theirs."""
    arguments = dict(config.arguments)
    arguments["kv_cache_config"] = llmapi.KvCacheConfig(**arguments["kv_cache_config"])
    scheduler = dict(arguments.pop("scheduler_config", {}))
    if scheduler:
        policy = scheduler.get("waiting_queue_policy")
        if isinstance(policy, str):
            kinds = llmapi.SchedulerConfig.model_fields["waiting_queue_policy"].annotation
            scheduler["waiting_queue_policy"] = getattr(kinds, policy.upper(), policy)
        arguments["scheduler_config"] = llmapi.SchedulerConfig(**scheduler)
    return arguments
