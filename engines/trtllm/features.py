"""What the installed TensorRT-LLM accepts, read from its signatures and never from its version."""

import inspect
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Features:
    """Names that may be passed, by what takes them."""

    arguments: frozenset[str]  # LLM, that is LlmArgs
    kv_cache: frozenset[str]  # KvCacheConfig
    scheduler: frozenset[str]  # SchedulerConfig
    queue_policies: frozenset[str]  # members of its waiting_queue_policy
    sampling: frozenset[str]  # SamplingParams
    call: frozenset[str]  # LLM.generate_async
    adapters: bool = False  # LoRARequest is there, and taken
    retention: bool = False  # the same of KvCacheRetentionConfig
    phases: frozenset[str] = frozenset()  # DisaggregatedParams, where those are taken


def read_features(package: ModuleType, llmapi: ModuleType) -> Features:
    """The names of `tensorrt_llm` and of its `llmapi`."""
    scheduler = llmapi.SchedulerConfig.model_fields
    policy = scheduler.get("waiting_queue_policy")
    call = _parameters(package.LLM.generate_async)
    phases = getattr(llmapi, "DisaggregatedParams", None)
    return Features(
        arguments=frozenset(llmapi.TorchLlmArgs.model_fields),
        kv_cache=frozenset(llmapi.KvCacheConfig.model_fields),
        scheduler=frozenset(scheduler),
        queue_policies=frozenset(getattr(policy and policy.annotation, "__members__", ())),
        sampling=_parameters(package.SamplingParams),
        call=call,
        adapters="lora_request" in call and hasattr(llmapi, "LoRARequest"),
        retention="kv_cache_retention_config" in call and hasattr(llmapi, "KvCacheRetentionConfig"),
        phases=_parameters(phases) if phases and "disaggregated_params" in call else frozenset(),
    )


def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters) - {"self"}
