"""Every setting, once: its default, unit, help and parser.

The command line, the environment names and docs/configuration.md are derived from these fields.
A new one needs a user who must change it and a default that is right for everyone else.
"""

# ruff: noqa: RUF009 - frozen values, made once

from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from gateway.setting_kinds import (
    Kind,
    Secret,
    byte_count,
    choice,
    device_name,
    flag,
    host_name,
    host_names,
    number,
    origins,
    path,
    redis_url,
    seconds,
    secret,
    secrets,
    texts,
    worker_address,
    worker_addresses,
)
from openai_compat.output.registry import reasoning_syntaxes, tool_syntaxes


def _setting(default: Any, kind: Kind, doc: str, *, group: str, unit: str = "") -> Any:
    return field(default=default, metadata={"kind": kind, "doc": doc, "group": group, "unit": unit})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator may choose. Values are final: nothing below reads another source."""

    model_dir: Path | None = _setting(
        None,
        path(),
        "Model directory as published on the hub; none: the bundled demo",
        group="model",
    )
    served_model_name: tuple[str, ...] = _setting(
        (),
        texts(),
        "Name clients ask for; given again: aliases (default: directory)",
        group="model",
    )
    engine: str = _setting(
        "auto",
        choice("auto", "torch", "openvino", "ledger", "trtllm", "vllm", "upstream", "smg"),
        "What computes tokens; auto: openvino on CPUs where it can, else torch",
        group="model",
    )
    engine_config: Path | None = _setting(
        None,
        path(),
        "YAML of an engine that batches by itself; see docs/engines",
        group="model",
    )
    dtype: str = _setting(
        "auto", choice("auto", "float32", "bfloat16", "int8", "int4"),
        "Weights and KV precision; int8, int4: weights of openvino alone", group="model",
    )  # fmt: skip
    device: str = _setting(
        "auto", device_name(), "Where it runs: auto, cpu, cuda or cuda:N", group="model"
    )
    threads: int = _setting(
        0, number(0, 1024), "Threads that compute on the CPU; 0: the engine's choice",
        group="model", unit="threads",
    )  # fmt: skip
    graph_cache_dir: Path | None = _setting(
        None, path(), "Folder of lowered models (openvino); none: ~/.cache/penstock/graphs",
        group="model",
    )  # fmt: skip
    cuda_graphs: str = _setting(
        "start", choice("start", "lazy", "never"),
        "When decoding steps are captured on a GPU: at start, when first needed, never",
        group="model",
    )  # fmt: skip
    tensor_parallel: int = _setting(
        1, number(1, 8), "Processes that each compute a part of the model, on a GPU each; torch",
        group="model", unit="processes",
    )  # fmt: skip
    tool_parser: str = _setting(
        "auto", choice("auto", "none", *tool_syntaxes(), metavar="NAME"),
        "How the model writes tool calls; auto: as its chat template shows", group="model",
    )  # fmt: skip
    reasoning_parser: str = _setting(
        "auto", choice("auto", "none", *reasoning_syntaxes(), metavar="NAME"),
        "How the model writes its reasoning; auto: as its chat template shows", group="model",
    )  # fmt: skip
    named_call_finish: str = _setting(
        "stop", choice("stop", "tool_calls"),
        "finish_reason of a call to the function that the client named", group="model",
    )  # fmt: skip
    max_running: int = _setting(
        64, number(1, 4096), "Sequences computed in one step", group="capacity", unit="sequences"
    )
    max_context: int = _setting(
        0,
        number(0, 1 << 24),
        "Prompt + output; 0: the model's own",
        group="capacity",
        unit="tokens",
    )
    memory: int = _setting(
        0, byte_count(), "Memory of one worker in all, weights included; 0: what is free",
        group="capacity", unit="bytes",
    )  # fmt: skip
    block_size: int = _setting(
        32, number(1, 1024), "Tokens in one KV block", group="capacity", unit="tokens"
    )
    kv_cache_memory: int = _setting(
        0, byte_count(), "Memory of the KV cache; 0: what fits beside the weights",
        group="capacity", unit="bytes",
    )  # fmt: skip
    kv_host_memory: int = _setting(
        0, byte_count(), "Memory for KV blocks that the cache has no room for; 0: none is kept",
        group="capacity", unit="bytes",
    )  # fmt: skip
    kv_disk_dir: Path | None = _setting(
        None, path(), "Folder for those that --kv-host-memory has no room for; each worker's own",
        group="capacity",
    )  # fmt: skip
    kv_disk_bytes: int = _setting(
        16 << 30, byte_count(), "Size of what each worker keeps there", group="capacity",
        unit="bytes",
    )  # fmt: skip
    max_step_tokens: int = _setting(
        2048, number(2, 1 << 20), "Tokens computed in one step, prompts included", group="capacity",
        unit="tokens",
    )  # fmt: skip
    step_target_s: float = _setting(
        0.06, seconds(0, 3600),
        "A step that decodes takes prompts along for about; 0: for --max-step-tokens",
        group="capacity", unit="s",
    )  # fmt: skip
    speculate: int = _setting(
        7, number(0, 64), "Tokens guessed ahead for a sequence in one step, while few run; 0: none",
        group="capacity", unit="tokens",
    )  # fmt: skip
    max_queued_requests: int = _setting(
        256, number(0, 1 << 20), "Sequences that may wait beyond the running ones",
        group="capacity", unit="sequences",
    )  # fmt: skip
    max_queued_tokens: int = _setting(
        262_144, number(1, 1 << 30), "Prompt tokens that may wait for their first token",
        group="capacity", unit="tokens",
    )  # fmt: skip
    response_store_bytes: int = _setting(
        64 << 20, byte_count(), "Memory for stored responses; 0: none are kept",
        group="capacity", unit="bytes",
    )  # fmt: skip
    response_ttl_s: float = _setting(
        2_592_000.0, seconds(1, 1e9), "A response that nobody uses is kept for",
        group="capacity", unit="s",
    )  # fmt: skip
    host: str = _setting(
        "127.0.0.1", host_name(), "Address to bind; other than loopback needs an API key",
        group="server",
    )  # fmt: skip
    port: int = _setting(8000, number(0, 65535), "TCP port; 0: any free one", group="server")
    api_key: tuple[Secret, ...] = _setting(
        (), secrets(), "Key a client must send; repeat for several", group="server"
    )
    api_key_file: Path | None = _setting(
        None, path(), "YAML of keys with weights and limits of their own; see docs/limits.md",
        group="server",
    )  # fmt: skip
    key_tokens_per_minute: int = _setting(
        0, number(0, 1_000_000_000), "Prompt and output that one key may have; 0: unlimited",
        group="server", unit="tokens/min",
    )  # fmt: skip
    key_max_concurrent: int = _setting(
        0, number(0, 1_000_000), "Calls that one key may have in flight; 0: unlimited",
        group="server", unit="calls",
    )  # fmt: skip
    cors_origin: tuple[str, ...] = _setting(
        (), origins(), "Origin whose web pages may call; repeat for several; *: any page",
        group="server",
    )  # fmt: skip
    allowed_host: tuple[str, ...] = _setting(
        (), host_names(), "Host name to serve, and no other; repeat for several, *.name: all below",
        group="server",
    )  # fmt: skip
    metrics_public: bool = _setting(
        default=False,
        kind=flag(),
        doc="Serve /metrics without an API key",
        group="server",
    )
    max_connections: int = _setting(
        4096, number(1, 1 << 20), "Open client connections", group="server", unit="connections"
    )
    header_timeout_s: float = _setting(
        10.0, seconds(0.1, 3600), "A request head must be complete in", group="server", unit="s"
    )
    body_timeout_s: float = _setting(
        30.0, seconds(0.1, 3600), "A request body must be complete in", group="server", unit="s"
    )
    max_body_bytes: int = _setting(
        2 << 20, byte_count(low=1024), "Largest request body", group="server", unit="bytes"
    )
    engine_extras: bool = _setting(
        default=False,
        kind=flag(),
        doc="Take request fields that only the engine reads; for clients that are trusted",
        group="server",
    )
    sse_keepalive_s: float = _setting(
        15.0,
        seconds(0, 3600),
        "Comment on an idle stream after; 0: never",
        group="server",
        unit="s",
    )
    write_stall_s: float = _setting(
        60.0,
        seconds(0.1, 3600),
        "A reader that takes nothing is cut after",
        group="server",
        unit="s",
    )
    drain_timeout_s: float = _setting(
        30.0, seconds(0, 3600), "Running requests may end within, after SIGTERM", group="server",
        unit="s",
    )  # fmt: skip
    log_level: str = _setting(
        "info", choice("debug", "info", "warning", "error"), "Least severity logged", group="server"
    )
    replicas: int = _setting(
        1, number(1, 64), "Worker processes that `serve` starts, each with the whole model",
        group="workers", unit="processes",
    )  # fmt: skip
    worker: tuple[str, ...] = _setting(
        (), worker_addresses(), "Address of a worker that `gateway` fronts; repeat for several",
        group="workers",
    )  # fmt: skip
    routing: str = _setting(
        "prefix", choice("prefix", "least-loaded", "round-robin", "sticky"),
        "Which worker gets a request; prefix: who has most of the prompt, and room",
        group="workers",
    )  # fmt: skip
    listen: str = _setting(
        "127.0.0.1:8010", worker_address(), "Address that `worker` binds: HOST:PORT or unix:PATH",
        group="workers",
    )  # fmt: skip
    worker_token: Secret | None = _setting(
        None, secret(), "What gateways and workers show each other; not as a flag",
        group="workers",
    )  # fmt: skip
    worker_cert: Path | None = _setting(
        None, path(), "Certificate for workers on other machines, PEM", group="workers"
    )
    worker_key: Path | None = _setting(None, path(), "Its private key, PEM", group="workers")
    worker_ca: Path | None = _setting(
        None, path(), "What has signed the certificate of the other side, PEM", group="workers"
    )
    redis: Secret | None = _setting(
        None, redis_url(), "Redis that gateways and workers share; with a password: not as a flag",
        group="workers",
    )  # fmt: skip
    advertise: str | None = _setting(
        None, worker_address(), "Where others reach it, as Redis is told (default: what it binds)",
        group="workers",
    )  # fmt: skip
    migrations: int = _setting(
        3, number(0, 100), "Workers that may die under a stream before it is given up",
        group="workers", unit="deaths",
    )  # fmt: skip
    migration_wait_s: float = _setting(
        30.0, seconds(0, 3600), "A stream whose worker died waits for another for", group="workers",
        unit="s",
    )  # fmt: skip
    step_timeout_s: float = _setting(
        60.0, seconds(1, 86_400), "An engine with work that takes no step is ended after",
        group="workers", unit="s",
    )  # fmt: skip


# What a worker reads; all else is the gateway's. Names that both read are in both.
_BOTH = frozenset(
    {"model_dir", "served_model_name", "drain_timeout_s", "log_level"}
    | {"worker_cert", "worker_key", "worker_ca"}
)
_ENGINE = frozenset(
    {"engine", "engine_config", "dtype", "device", "threads", "graph_cache_dir", "cuda_graphs"}
    | {"tensor_parallel"}
    | {"max_running", "max_context", "block_size"}
    | {"memory", "kv_cache_memory", "kv_host_memory", "kv_disk_dir", "kv_disk_bytes"}
    | {"max_step_tokens", "step_target_s", "speculate", "step_timeout_s"}
)
_NO_FLAG = frozenset({"worker_token"})  # other users of a machine see flags
_ELSEWHERE = frozenset({"worker", "listen", "worker_cert", "worker_key", "worker_ca"})
_SHARED = frozenset({"redis", "advertise"})
_SELF_BATCHING = frozenset({"engine_config", "step_timeout_s", "kv_disk_dir", "kv_disk_bytes"})


def flags_of(command: str) -> tuple[Field[Any], ...]:
    """The settings that a command takes as flags."""
    every = {field.name for field in setting_fields()} - _NO_FLAG
    taken = {
        "serve": every - _ELSEWHERE,
        "plan": _ENGINE - _SELF_BATCHING | {"model_dir", "replicas"},
        "worker": _BOTH | _ENGINE | _SHARED | {"listen"},
        "gateway": every - _ENGINE - {"listen", "replicas"},
    }[command]
    return tuple(field for field in setting_fields() if field.name in taken)


def engine_arguments(settings: Settings) -> tuple[str, ...]:
    """The flags that give a worker the engine that these settings choose."""
    flags: list[str] = []
    told = (_BOTH | _ENGINE) - _ELSEWHERE - {"model_dir"}
    for entry in setting_fields():
        value = getattr(settings, entry.name)
        if entry.name in told and value != entry.default:
            flags += _given(entry.name.replace("_", "-"), value)
    place = () if settings.model_dir is None else ("--", str(settings.model_dir.absolute()))
    return (*flags, *place)


def _given(flag: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, Path):
        value = value.absolute()  # a worker runs in another folder
    several = value if isinstance(value, tuple) else (value,)
    return [f"--{flag}={each}" for each in several]


def setting_fields() -> tuple[Field[Any], ...]:
    """The settings in the order of the reference."""
    return fields(Settings)
