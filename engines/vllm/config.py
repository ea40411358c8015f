"""One YAML for a vLLM engine: keys of AsyncEngineArgs, and our own under `penstock`.

model: /models/llama
max_model_len: 8192
gpu_memory_utilization: 0.85
penstock: {name: llama}
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from engines.errors import ModelRejected
from engines.vllm.features import Features

# Keys that name code to be imported, or files whose text may.
_CODE = frozenset({
    "code_revision", "io_processor_plugin", "log_config_file", "logging_config",
    "logits_processors", "model_class_overrides", "reasoning_parser_plugin", "scheduler_cls",
    "worker_cls", "worker_extension_cls",
})  # fmt: skip
_FETCHES = frozenset({"hf_token", "download_dir"})  # nothing is downloaded
_TENSORS = ("safetensors", "fastsafetensors", "sharded_state", "mistral", "dummy")
_EXECUTORS = ("mp", "ray", "uni")
_ONLY: Mapping[str, tuple[tuple[object, ...], str]] = {
    "trust_remote_code": ((False,), "code of a model is never run"),
    "load_format": (_TENSORS, "weights are safetensors: other formats may hold code"),
    "distributed_executor_backend": (_EXECUTORS, "another name would be imported as code"),
    "logprobs_mode": (("raw_logprobs",), "log-probabilities are the model's own"),
    "data_parallel_size": ((1,), "run a worker for each, and let the gateway choose"),
    "runner": (("auto", "generate"), "this engine generates"),
}


@dataclass(frozen=True, slots=True)
class Own:
    """The section `penstock`."""

    name: str | None = None  # of the model; else the last part of its path
    ageing_s: float = 5.0  # seconds of waiting that outweigh one class of priority

    def __post_init__(self) -> None:
        """Raise ModelRejected for values of the wrong kind."""
        if not isinstance(self.name, str | None):
            raise ModelRejected("penstock.name must be a text")
        ageing = self.ageing_s
        if isinstance(ageing, bool) or not isinstance(ageing, int | float) or not ageing >= 0:
            raise ModelRejected("penstock.ageing_s must be seconds, 0 or more")


@dataclass(frozen=True, slots=True)
class Config:
    """What to start. `arguments` go to AsyncEngineArgs; nested mappings are still mappings."""

    model: Path
    arguments: Mapping[str, Any]
    own: Own

    @property
    def name(self) -> str:
        """The model's, as clients see it."""
        return self.own.name or self.model.name

    @property
    def takes_grammars(self) -> bool:
        """Whether what llguidance takes can be given to it. It reads tokens by the tokenizer."""
        structured = self.arguments.get("structured_outputs_config") or {}
        return structured.get("backend") == "guidance" and not self.arguments["skip_tokenizer_init"]

    @property
    def by_priority(self) -> bool:
        """Whether its own queue looks at priorities."""
        return bool(self.arguments.get("scheduling_policy") == "priority")

    @property
    def tells_stats(self) -> bool:
        """Whether the engine keeps statistics of its iterations."""
        return not self.arguments.get("disable_log_stats")


def read_config(text: str, features: Features) -> Config:
    """Read the YAML. Raises ModelRejected naming what is unknown, missing or not taken."""
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ModelRejected(f"the configuration is no YAML: {error}") from error
    if not isinstance(given, dict):
        raise ModelRejected(
            "the configuration must be a mapping of engine arguments and `penstock`"
        )
    own = _own(given.get("penstock"))
    arguments = {key: value for key, value in given.items() if key != "penstock"}
    _known(arguments, features.arguments, "AsyncEngineArgs")
    _refuse(arguments)
    model = _directory(arguments.get("model"), "model", holding="config.json")
    if arguments.get("tokenizer") is not None:
        _directory(arguments["tokenizer"], "tokenizer")
    arguments["model"] = str(model)
    return Config(model, {**_defaults(arguments, model, features), **arguments}, own)


def _defaults(
    arguments: Mapping[str, Any], model: Path, features: Features
) -> Mapping[str, object]:
    """Ours: the cache is used, order is ours, nothing is fetched, told or logged of requests."""
    structured = arguments.get("structured_outputs_config") or {}
    wants_text = bool(structured or arguments.get("reasoning_parser"))
    has_text = (Path(arguments.get("tokenizer") or model) / "tokenizer.json").is_file()
    wanted: dict[str, object] = {
        "enable_chunked_prefill": True,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "load_format": "safetensors",
        "trust_remote_code": False,
        "disable_log_stats": False,
        "enable_log_requests": False,
        "skip_tokenizer_init": not (has_text or wants_text),
    }
    if has_text and not arguments.get("skip_tokenizer_init"):
        wanted["structured_outputs_config"] = {"backend": "guidance"}
    return {key: value for key, value in wanted.items() if key in features.arguments}


def _refuse(arguments: Mapping[str, Any]) -> None:
    """Raise ModelRejected for what would run code, download, or break the port's contract."""
    for key in sorted(_CODE & arguments.keys()):
        raise ModelRejected(f"{key} is not taken: it names code to run")
    for key in sorted(_FETCHES & arguments.keys()):
        raise ModelRejected(f"{key} is not taken: nothing is downloaded")
    if "served_model_name" in arguments:
        raise ModelRejected("served_model_name is not taken: it is penstock.name")
    for key, (allowed, reason) in _ONLY.items():
        if key in arguments and arguments[key] not in allowed:
            words = ", ".join(map(str, allowed))
            raise ModelRejected(f"{key} is {arguments[key]!r}, may be {words}: {reason}")
    for key in ("kv_transfer_config", "ec_transfer_config"):
        section = arguments.get(key)
        if isinstance(section, dict) and any(name.endswith("module_path") for name in section):
            raise ModelRejected(f"{key} names a module to import: that is not taken")


def _own(section: object) -> Own:
    if section is None:
        return Own()
    if not isinstance(section, dict):
        raise ModelRejected("penstock must be a mapping")
    _known(section, frozenset(each.name for each in fields(Own)), "penstock")
    return Own(**section)


def _directory(value: object, key: str, *, holding: str = "") -> Path:
    if not value or not isinstance(value, str):
        raise ModelRejected(f"the configuration lacks {key}: a directory")
    if not Path(value).is_dir() or not (Path(value) / holding).exists():
        what = f"directory with a {holding}" if holding else "directory"
        raise ModelRejected(f"{key} is no {what} here, and nothing is downloaded: {value}")
    return Path(value)


def _known(given: Iterable[object], known: frozenset[str], where: str) -> None:
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise ModelRejected(f"unknown in {where}: {', '.join(unknown)}")
