"""Opens the engines that batch by themselves, from the YAML that --engine-config names.

Only worker processes import it. What such an engine is, is known once it has started.
"""

# ruff: noqa: PLC0415 - engines are imported when they are chosen

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from engines.api import Capability, Engine
from engines.errors import ModelRejected
from engines.limits import Limits
from engines.self_batching.model_facts import read_model_facts
from engines.wire.channels import Tls
from gateway.kv_budget import KvBudget, KvNeed
from gateway.model_directory import TextSide
from gateway.opened import OnDeath, Sizes
from gateway.settings import Settings

# Where nobody counts steps, nobody can say that none is taken: they watch themselves.
UNWATCHED = frozenset({"upstream", "smg"})
IN_MAIN_THREAD = frozenset({"trtllm"})  # it starts processes and catches signals of its own


@dataclass(frozen=True, slots=True)
class Configured:
    """An engine that has not started, and its sizes for when it has."""

    engine: Engine
    sizes: Callable[[], Sizes]


def _open_trtllm(_: Path, __: TextSide, settings: Settings, on_death: OnDeath) -> Configured:
    from engines.trtllm.opening import open_trtllm

    engine = open_trtllm(_text(settings), on_death=on_death)
    return Configured(engine, lambda: _sizes(engine, engine.limits, engine.ends))


def _open_upstream(path: Path, text: TextSide, settings: Settings, _: OnDeath) -> Configured:
    from engines.upstream.config import Kind, UpstreamConfig
    from engines.upstream.engine import UpstreamEngine

    facts, given = read_model_facts(path), _values(settings)
    key_file = given.pop("api_key_file", None)
    ends = facts.ends or text.end_tokens
    known = {"vocab_size": facts.vocab_size, "ends": ends}
    if key_file is not None:
        known["api_key"] = _secret(key_file)
    if "kind" in given:
        given["kind"] = _chosen(Kind, given["kind"])
    engine = UpstreamEngine(_made(UpstreamConfig, given, known))
    return Configured(engine, lambda: _sizes(engine, engine.limits, ends))


def _open_smg(path: Path, text: TextSide, settings: Settings, on_death: OnDeath) -> Configured:
    from engines.smg.engine import SmgEngine
    from engines.smg.facts import Given

    facts, given = read_model_facts(path), _values(settings)
    address, tls = given.pop("address", None), given.pop("tls", None)
    if not isinstance(address, str):
        raise ModelRejected("--engine-config: address is missing: HOST:PORT of trtllm-serve --grpc")
    ends = facts.ends | text.end_tokens  # the server may drop the tokenizer's own without a word
    given["honours"] = frozenset(given.get("honours", ()))
    known = {"vocab_size": facts.vocab_size, "ends": ends}
    own = _made(Given, given, known)
    engine = SmgEngine(address, own, tls=_tls(tls), on_death=on_death)
    return Configured(engine, lambda: _sizes(engine, engine.facts.limits, ends))


def _open_vllm(_: Path, text: TextSide, settings: Settings, on_death: OnDeath) -> Configured:
    from engines.vllm.opening import open_vllm

    engine = open_vllm(_text(settings), ends=text.end_tokens, on_death=on_death)
    return Configured(engine, lambda: _sizes(engine, engine.limits, engine.ends))


OPENERS: Mapping[str, Callable[[Path, TextSide, Settings, OnDeath], Configured]] = MappingProxyType(
    {"trtllm": _open_trtllm, "upstream": _open_upstream, "smg": _open_smg, "vllm": _open_vllm}
)


def _sizes(engine: Engine, limits: Limits, ends: frozenset[int]) -> Sizes:
    need = KvNeed(0, limits.block_size, limits.max_running, limits.max_context)
    kv = KvBudget(limits.num_blocks, limits.max_context, 0, need)  # its memory is not ours
    return Sizes(kv, limits, ends, Capability.GRAMMAR in engine.info.capabilities)


def _text(settings: Settings) -> str:
    if settings.engine_config is None:
        raise ModelRejected(f"--engine {settings.engine} needs --engine-config FILE")
    try:
        return settings.engine_config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelRejected(f"--engine-config cannot be read: {error}") from error


def _values(settings: Settings) -> dict[str, Any]:
    try:
        read = yaml.safe_load(_text(settings))
    except yaml.YAMLError:
        raise ModelRejected("--engine-config is not YAML") from None
    if not isinstance(read, dict) or not all(isinstance(key, str) for key in read):
        raise ModelRejected("--engine-config must be a mapping of names to values")
    return read


def _made(kind: type[Any], given: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> Any:
    """A configuration object. Raises ModelRejected naming what is wrong in the file."""
    names = {field.name for field in fields(kind)} - {"api_key"}
    unknown = sorted(set(given) - names)
    if unknown:
        raise ModelRejected(
            f"--engine-config: unknown key {unknown[0]!r}; it takes {', '.join(sorted(names))}"
        )
    try:
        return kind(**{**(known or {}), **given})
    except (TypeError, ValueError) as error:
        raise ModelRejected(f"--engine-config: {error}") from None


def _tls(files: object) -> Tls | None:
    if files is None:
        return None
    if not isinstance(files, dict):
        raise ModelRejected("--engine-config: tls must name the files certificate, key and ca")
    tls: Tls = _made(Tls, {name: Path(str(file)) for name, file in files.items()})
    return tls


def _chosen(kinds: Any, value: object) -> Any:
    try:
        return kinds(value)
    except ValueError:
        raise ModelRejected(f"--engine-config: kind must be one of {', '.join(kinds)}") from None


def _secret(file: object) -> str:
    try:
        return Path(str(file)).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ModelRejected("--engine-config: api_key_file cannot be read") from None
