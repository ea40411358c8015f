"""One YAML for a TensorRT-LLM engine: keys of LlmArgs, and our own under `penstock`.

model: /models/llama
max_seq_len: 8192
kv_cache_config: {free_gpu_memory_fraction: 0.85}
penstock: {name: llama, sampler_applies: [penalties]}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from engines.errors import ModelRejected
from engines.trtllm.disaggregated import DISAGGREGATED
from engines.trtllm.features import Features
from engines.trtllm.retention import RETENTION

SAMPLER_PARTS = frozenset({"penalties", "min_p"})  # accepted by every version, ignored by some

# Sizes that TensorRT-LLM has where none are given, as its API reference prints them.
_MAX_BATCH_SIZE = 2048
_MAX_NUM_TOKENS = 8192
_TOKENS_PER_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Own:
    """The section `penstock`."""

    name: str | None = None  # of the model; else the last part of its path
    num_blocks: int | None = None  # KV blocks, where the engine's events do not tell
    vocab_size: int | None = None  # else from the model's config.json
    ageing_s: float = 5.0  # seconds of waiting that outweigh one class of priority
    sampler_applies: frozenset[str] = frozenset()  # of SAMPLER_PARTS: what this build honours
    adapters: Mapping[str, str] = field(default_factory=dict)  # name of a LoRA adapter: its path
    context_hosts: frozenset[str] = frozenset()  # that the engine may fetch KV caches from


@dataclass(frozen=True, slots=True)
class Config:
    """What to start. `arguments` go to `LLM`; nested `kv_cache_config` and `scheduler_config`."""

    model: str
    max_seq_len: int
    arguments: Mapping[str, Any]
    own: Own

    @property
    def max_running(self) -> int:
        """Sequences in one iteration."""
        return int(self.arguments.get("max_batch_size") or _MAX_BATCH_SIZE)

    @property
    def max_num_tokens(self) -> int:
        """Tokens in one iteration."""
        return int(self.arguments.get("max_num_tokens") or _MAX_NUM_TOKENS)

    @property
    def block_size(self) -> int:
        """Tokens per KV block."""
        return int(self.arguments["kv_cache_config"].get("tokens_per_block") or _TOKENS_PER_BLOCK)

    @property
    def num_blocks(self) -> int | None:
        """KV blocks, where the file says it."""
        tokens = self.arguments["kv_cache_config"].get("max_tokens")
        return self.own.num_blocks or (int(tokens) // self.block_size if tokens else None)

    @property
    def tells_events(self) -> bool:
        """Whether the engine keeps events of its KV cache."""
        return bool(self.arguments["kv_cache_config"].get("event_buffer_max_size"))

    @property
    def tells_stats(self) -> bool:
        """Whether the engine keeps statistics of its iterations."""
        return bool(self.arguments.get("enable_iter_perf_stats"))

    def extras(self, features: Features) -> frozenset[str]:
        """The extras that the version has and that this configuration lets have an effect."""
        reuses = self.arguments["kv_cache_config"].get("enable_block_reuse")
        has = {
            RETENTION: features.retention and reuses,
            DISAGGREGATED: features.phases and self.arguments.get("cache_transceiver_config"),
        }
        return frozenset(name for name, there in has.items() if there)

    @property
    def takes_grammars(self) -> bool:
        """Whether what llguidance takes can be given to it. It reads tokens by the tokenizer."""
        return (
            self.arguments.get("guided_decoding_backend") == "llguidance"
            and not self.arguments["skip_tokenizer_init"]
        )


def read_config(text: str, features: Features) -> Config:
    """Read the YAML. Raises ModelRejected naming what is unknown, missing or of the wrong kind."""
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ModelRejected(f"the configuration is no YAML: {error}") from error
    if not isinstance(given, dict):
        raise ModelRejected("the configuration must be a mapping of LlmArgs and `penstock`")
    own = _own(_section(given, "penstock"))
    arguments = {key: value for key, value in given.items() if key != "penstock"}
    _known(arguments, features.arguments, "LlmArgs")
    missing = sorted({"model", "max_seq_len"} - {key for key in arguments if arguments[key]})
    if missing:
        raise ModelRejected(f"the configuration lacks {', '.join(missing)}")
    arguments["kv_cache_config"] = _kv_cache(_section(given, "kv_cache_config"), features)
    if "scheduler_config" in features.arguments:
        arguments["scheduler_config"] = _scheduler(_section(given, "scheduler_config"), features)
    if own.adapters:
        _check_adapters(own.adapters, _section(given, "lora_config"), features)
    complete = {**_defaults(arguments, features), **arguments}
    return Config(str(arguments["model"]), int(arguments["max_seq_len"]), complete, own)


def _defaults(arguments: Mapping[str, Any], features: Features) -> dict[str, Any]:
    """Ours: long prompts must not be rejected, and neither text nor telemetry is wanted."""
    wanted: dict[str, Any] = {
        "enable_chunked_prefill": True,
        "num_postprocess_workers": 0,
        "telemetry_config": {"disabled": True},
        "skip_tokenizer_init": arguments.get("guided_decoding_backend") is None,
    }
    return {key: value for key, value in wanted.items() if key in features.arguments}


def _kv_cache(given: Mapping[str, Any], features: Features) -> dict[str, Any]:
    _known(given, features.kv_cache, "kv_cache_config")
    return {"enable_block_reuse": True, "event_buffer_max_size": 100_000, **given}


def _scheduler(given: Mapping[str, Any], features: Features) -> dict[str, Any]:
    _known(given, features.scheduler, "scheduler_config")
    ours = {"waiting_queue_policy": "PRIORITY"} if "PRIORITY" in features.queue_policies else {}
    return {**ours, **given}


def _own(given: Mapping[str, Any]) -> Own:
    _known(given, frozenset(each.name for each in fields(Own)), "penstock")
    values = dict(given)
    if "sampler_applies" in values:
        values["sampler_applies"] = frozenset(values["sampler_applies"] or ())
        _known(values["sampler_applies"], SAMPLER_PARTS, "penstock.sampler_applies")
    if "adapters" in values:
        values["adapters"] = _adapters(_section(given, "adapters"))
    if "context_hosts" in values:
        values["context_hosts"] = frozenset(map(str, values["context_hosts"] or ()))
    return Own(**values)


def _adapters(given: Mapping[str, Any]) -> dict[str, str]:
    if not all(isinstance(each, str) and each for pair in given.items() for each in pair):
        raise ModelRejected("penstock.adapters must map names to paths")
    return dict(given)


def _check_adapters(
    adapters: Mapping[str, str], lora: Mapping[str, Any], features: Features
) -> None:
    """Refuse what would fail at the first request for one."""
    if not features.adapters:
        raise ModelRejected("this TensorRT-LLM takes no LoRA adapters (penstock.adapters)")
    if not (lora.get("lora_dir") or lora.get("lora_target_modules")):
        raise ModelRejected(
            "penstock.adapters needs lora_config with lora_dir or lora_target_modules"
        )
    missing = sorted(path for path in adapters.values() if not Path(path).exists())
    if missing:
        raise ModelRejected(f"no LoRA adapter is at {', '.join(missing)}")


def _section(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = given.get(name) or {}
    if not isinstance(section, dict):
        raise ModelRejected(f"{name} must be a mapping")
    return section


def _known(given: Mapping[str, Any] | frozenset[str], known: frozenset[str], where: str) -> None:
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise ModelRejected(f"unknown in {where}: {', '.join(unknown)}")
