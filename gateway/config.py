"""Settings: the only reader of flags, environment and files. Flags > PENSTOCK_* > YAML > default.

ConfigError is the only failure: one sentence that names the source, the value's place and a hint.
It never quotes a secret.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.openvino.version import QUANTISED
from gateway.redis.address import parse_address
from gateway.setting_kinds import ANY_ORIGIN
from gateway.settings import Settings, setting_fields

if TYPE_CHECKING:
    from engines.wire.channels import Tls

ENV_PREFIX = "PENSTOCK_"
_PROMPT_ROOM = 4  # tokens of a step; engines.limits says why
_CONFIG_ENV = "PENSTOCK_CONFIG"
# Kubernetes gives every pod variables named after each Service: one called "penstock" would
# otherwise read as settings.
_SERVICE_LINK = re.compile(r"PENSTOCK_(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP)\w*)")


class ConfigError(Exception):
    """A setting is unknown or has an impossible value."""


def read_settings(
    flags: Mapping[str, object],
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Merge the sources. `flags` holds only what was given on the command line."""
    env = os.environ if environ is None else environ
    config_path = config or (Path(env[_CONFIG_ENV]) if _CONFIG_ENV in env else None)
    values = {
        **_from_yaml(config_path),
        **_from_env(env),
        **{name: _parse(name, value, f"--{_dashed(name)}") for name, value in flags.items()},
    }
    settings = Settings(**values)
    _check_exposure(settings)
    _check_origins(settings)
    _check_keys(settings)
    _check_step(settings)
    _check_computing(settings)
    _check_redis(settings)
    return settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_worker(settings: Settings) -> None:
    """What `penstock worker` must be given. Raises ConfigError."""
    check_channels(settings, (settings.listen,))


def check_gateway(settings: Settings) -> None:
    """What `penstock gateway` must be given. Raises ConfigError."""
    if not settings.worker and settings.redis is None:
        raise ConfigError(
            "no worker is named: give --worker ADDRESS, or --redis URL to find them, or use"
            " penstock serve"
        )
    check_channels(settings, settings.worker)


def check_channels(settings: Settings, addresses: Iterable[str]) -> None:
    """What workers at these addresses need. Raises ConfigError."""
    from engines.wire.channels import is_local  # noqa: PLC0415 - it brings gRPC

    worker_token(settings)
    if worker_tls(settings) is None:
        for address in addresses:
            if not is_local(address):
                raise ConfigError(
                    f"{address} is beyond this machine: gateways and workers need --worker-cert,"
                    " --worker-key and --worker-ca there"
                )


def worker_token(settings: Settings) -> str:
    """What gateways and workers show each other. Raises ConfigError where none was given."""
    if settings.worker_token is None:
        raise ConfigError(
            "gateways and workers need a secret in common: set PENSTOCK_WORKER_TOKEN to the same"
            " 16 or more characters for both"
        )
    return settings.worker_token.value


def worker_tls(settings: Settings) -> "Tls | None":
    """The files of mutual TLS with workers, all three or none. Raises ConfigError."""
    from engines.wire.channels import Tls  # noqa: PLC0415 - it brings gRPC

    files = settings.worker_cert, settings.worker_key, settings.worker_ca
    if not any(files):
        return None
    certificate, key, ca = files
    if certificate is None or key is None or ca is None:
        raise ConfigError("--worker-cert, --worker-key and --worker-ca are given together")
    for file in (certificate, key, ca):
        if not file.is_file():
            raise ConfigError(f"{file} is not a file")
    return Tls(certificate, key, ca)


def worker_environment(token: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a worker that we start finds in its environment: the token, and none of our settings."""
    env = os.environ if environ is None else environ
    kept = {name: value for name, value in env.items() if not name.startswith(ENV_PREFIX)}
    return {**kept, f"{ENV_PREFIX}WORKER_TOKEN": token}


def quiet_libraries() -> None:
    """Set what gRPC reads when it is imported: no lines of its own on stderr, no hooks at forks.

    Workers are executed at once after the fork, so there is nothing to hook.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, raw in env.items():
        if not variable.startswith(ENV_PREFIX) or variable == _CONFIG_ENV:
            continue
        if _SERVICE_LINK.fullmatch(variable) or (variable == "PENSTOCK_PORT" and "://" in raw):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        values[name] = _parse(name, raw, variable)
    return values


def _from_yaml(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    import yaml  # noqa: PLC0415 - 25 ms that a start without a file does not pay

    try:
        document = yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {config}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config} is not valid YAML") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{config} must hold settings as `name: value` lines")
    values: dict[str, Any] = {}
    for key, value in document.items():
        name = str(key).replace("-", "_")
        if name in values:
            raise ConfigError(f"{config}: {name} is given twice, with - and with _; keep one")
        values[name] = _parse(name, value, f"{config}: {name}")
    return values


def _parse(name: str, value: object, source: str) -> object:
    known = {entry.name: entry for entry in setting_fields()}
    if name not in known:
        raise ConfigError(f"{source}: unknown setting{_hint(name, known)}")
    try:
        parsed: object = known[name].metadata["kind"].parse(value)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{source}: {error}") from None
    return parsed


def _hint(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else "; see docs/configuration.md"


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _check_exposure(settings: Settings) -> None:
    if not _has_keys(settings) and not is_loopback(settings.host):
        raise ConfigError(
            f"refusing to listen on {settings.host} without an API key: anyone who reaches it could"
            " use the model; set PENSTOCK_API_KEY (or --api-key), or keep --host 127.0.0.1"
        )


def _has_keys(settings: Settings) -> bool:
    return bool(settings.api_key or settings.api_key_file)


def _check_keys(settings: Settings) -> None:
    if settings.api_key_file is None:
        return
    from gateway.key_file import KeyFileError, known_keys  # noqa: PLC0415 - only where there is one

    try:
        known_keys(settings)
    except KeyFileError as error:
        raise ConfigError(f"--api-key-file: {error}") from None


def _check_origins(settings: Settings) -> None:
    if ANY_ORIGIN in settings.cors_origin and not _has_keys(settings):
        raise ConfigError(
            "refusing --cors-origin * without an API key: any web page that a user opens could"
            " use the model; name the origins, or set PENSTOCK_API_KEY"
        )


def _check_step(settings: Settings) -> None:
    least = settings.max_running + _PROMPT_ROOM
    if settings.max_step_tokens < least:
        raise ConfigError(
            f"--max-step-tokens is {settings.max_step_tokens}, must be at least --max-running +"
            f" {_PROMPT_ROOM} = {least}: running sequences must leave room for a prompt"
        )


def _check_computing(settings: Settings) -> None:
    """Refuse settings that the chosen engine would not read."""
    engine = settings.engine
    if engine == "ledger" and (settings.dtype, settings.device) != ("auto", "auto"):
        raise ConfigError(
            "--dtype and --device mean nothing to --engine ledger, which has no model"
        )
    if settings.threads and engine not in ("auto", "torch", "openvino"):
        raise ConfigError(f"--threads means nothing to --engine {engine}")
    lowers = engine in ("auto", "openvino")
    if settings.graph_cache_dir is not None and not lowers:
        raise ConfigError(f"--graph-cache-dir means nothing to --engine {engine}")
    if settings.dtype in QUANTISED and not lowers:
        raise ConfigError(f"--dtype {settings.dtype} is of --engine openvino, not of {engine}")
    if settings.tensor_parallel > 1:
        _check_division(settings)


def _check_division(settings: Settings) -> None:
    """Refuse what a model in several processes cannot do."""
    asked = f"--tensor-parallel {settings.tensor_parallel}"
    if settings.engine not in ("auto", "torch"):
        raise ConfigError(f"{asked} is of --engine torch, not of {settings.engine}")
    if settings.dtype in QUANTISED:
        raise ConfigError(f"{asked} is of --engine torch, and --dtype {settings.dtype} of openvino")
    if settings.kv_host_memory or settings.kv_disk_dir is not None:
        raise ConfigError(
            f"{asked}: each process holds a part of every KV block, which --kv-host-memory and"
            " --kv-disk-dir cannot keep"
        )
    if settings.device.startswith("cuda:"):
        last = settings.tensor_parallel - 1
        raise ConfigError(
            f"{asked} takes cuda:0 to cuda:{last}, not --device {settings.device}:"
            " CUDA_VISIBLE_DEVICES says which those are"
        )


def _check_redis(settings: Settings) -> None:
    if settings.redis is None:
        if settings.advertise is not None:
            raise ConfigError("--advertise means nothing without --redis, which is who is told")
        return
    address = parse_address(settings.redis.value)
    if not address.local and address.password is None:
        raise ConfigError(
            "refusing a Redis beyond this machine without a password: who reaches it could send"
            " requests anywhere; see docs/redis.md"
        )
