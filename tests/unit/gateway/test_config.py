"""Settings: sources, precedence, refusals."""

from pathlib import Path

import pytest

from engines.limits import Limits
from gateway.config import (
    ConfigError,
    check_gateway,
    check_worker,
    is_loopback,
    read_settings,
    worker_environment,
)
from gateway.settings import Settings, engine_arguments, flags_of, setting_fields

DOC = Path(__file__).parents[3] / "docs" / "configuration.md"


def read(flags=None, environ=None, config=None):
    return read_settings(flags or {}, config=config, environ=environ or {})


@pytest.fixture
def yaml_file(tmp_path):
    def write(text):
        path = tmp_path / "penstock.yaml"
        path.write_text(text)
        return path

    return write


def test_defaults_need_nothing():
    """No flags, no variables, no file."""
    assert read() == Settings()


def test_flags_beat_environment_beats_file_beats_default(yaml_file):
    """Each source covers only what it says."""
    config = yaml_file("port: 1\nmax-running: 2\nblock_size: 3\n")
    environ = {"PENSTOCK_PORT": "10", "PENSTOCK_MAX_RUNNING": "20"}
    settings = read({"port": "100"}, environ, config)
    assert (settings.port, settings.max_running, settings.block_size) == (100, 20, 3)


def test_the_file_may_be_named_by_the_environment(yaml_file):
    """As a container does."""
    assert read(environ={"PENSTOCK_CONFIG": str(yaml_file("port: 7"))}).port == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [("4GiB", 4 << 30), ("512M", 512 << 20), ("1048576", 1 << 20), ("1.5k", 1536)],
)
def test_sizes_have_binary_units(text, value):
    """Bytes, or a unit that says how many."""
    assert read({"kv_cache_memory": text}).kv_cache_memory == value


def test_lists_come_repeated_or_with_commas(yaml_file):
    """A flag twice, a variable with commas, a YAML list."""
    named = ("a", "b/c")
    assert read({"served_model_name": ["a", "b/c"]}).served_model_name == named
    assert read(environ={"PENSTOCK_SERVED_MODEL_NAME": "a, b/c"}).served_model_name == named
    assert read(config=yaml_file("served_model_name: [a, b/c]")).served_model_name == named


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"PENSTOCK_PROT": "1"}, "did you mean port"),
        ({"PENSTOCK_ZZZZZZZZ": "1"}, "docs/configuration.md"),
        ({"PENSTOCK_PORT": "http"}, "PENSTOCK_PORT: must be a whole number"),
        ({"PENSTOCK_PORT": "65536"}, "between 0 and 65535"),
        ({"PENSTOCK_PORT": "9" * 5000}, "whole number"),
        ({"PENSTOCK_DRAIN_TIMEOUT_S": "nan"}, "finite"),
        ({"PENSTOCK_ENGINE": "magic"}, "one of auto, torch, openvino"),
        ({"PENSTOCK_DEVICE": "cuda:x"}, "cuda:N"),
        ({"PENSTOCK_ENGINE": "ledger", "PENSTOCK_DTYPE": "float32"}, "mean nothing"),
        ({"PENSTOCK_ENGINE": "ledger", "PENSTOCK_THREADS": "2"}, "threads means nothing"),
        (
            {"PENSTOCK_ENGINE": "torch", "PENSTOCK_GRAPH_CACHE_DIR": "g"},
            "means nothing to --engine",
        ),
        ({"PENSTOCK_ENGINE": "torch", "PENSTOCK_DTYPE": "int8"}, "of --engine openvino"),
        ({"PENSTOCK_TENSOR_PARALLEL": "9"}, "between 1 and 8"),
        (
            {"PENSTOCK_TENSOR_PARALLEL": "2", "PENSTOCK_ENGINE": "openvino"},
            "--tensor-parallel 2 is of --engine torch, not of openvino",
        ),
        ({"PENSTOCK_TENSOR_PARALLEL": "2", "PENSTOCK_DTYPE": "int8"}, "int8 of openvino"),
        ({"PENSTOCK_TENSOR_PARALLEL": "2", "PENSTOCK_KV_HOST_MEMORY": "1G"}, "cannot keep"),
        ({"PENSTOCK_TENSOR_PARALLEL": "4", "PENSTOCK_DEVICE": "cuda:1"}, "cuda:0 to cuda:3"),
        ({"PENSTOCK_ENGINE": "torch", "PENSTOCK_DTYPE": "int4"}, "int4 is of --engine openvino"),
        ({"PENSTOCK_ENGINE": "vllm", "PENSTOCK_DTYPE": "int4"}, "not of vllm"),
        ({"PENSTOCK_METRICS_PUBLIC": "maybe"}, "true or false"),
        ({"PENSTOCK_KV_CACHE_MEMORY": "lots"}, "4GiB"),
        ({"PENSTOCK_API_KEY": ""}, "must not be empty"),
        ({"PENSTOCK_API_KEY": "a,,b"}, "must not be empty"),
        ({"PENSTOCK_MODEL_DIR": ""}, "must be a path"),
    ],
)
def test_bad_values_are_refused_with_their_place(environ, told):
    """One sentence says where and what instead."""
    with pytest.raises(ConfigError, match=told):
        read(environ=environ)


@pytest.mark.parametrize(
    "text", ["port: [1]", "prot: 1", "- port", "port: 1: 2", "port: true", "port: !!python/x 1"]
)
def test_bad_files_are_refused(yaml_file, text):
    """Unknown keys, wrong shapes, and tags that would build objects."""
    with pytest.raises(ConfigError, match=r"penstock\.yaml"):
        read(config=yaml_file(text))


TEXT_SETTINGS = [
    "advertise", "allowed_host", "api_key", "api_key_file", "cors_origin", "cuda_graphs", "device",
    "dtype", "engine", "engine_config", "graph_cache_dir", "host", "kv_disk_dir", "listen",
    "log_level", "model_dir", "named_call_finish", "reasoning_parser", "redis", "routing",
    "served_model_name", "tool_parser", "worker", "worker_ca", "worker_cert", "worker_key",
    "worker_token",
]  # fmt: skip


def test_the_text_settings_are_all_of_them():
    """A further text setting belongs into the test below."""
    taken = [field.name for field in setting_fields() if takes_text(field.metadata["kind"])]
    assert sorted(taken) == TEXT_SETTINGS


def takes_text(kind):
    try:
        kind.parse(None)
    except (ValueError, TypeError) as refusal:
        return "must be text" in str(refusal)
    return True


@pytest.mark.parametrize("name", TEXT_SETTINGS)
@pytest.mark.parametrize(
    "value",
    ["", "null", "~", "[null]", "0123", "123", "[12]", "1.5", "true", "[a, no]", "2020-01-01",
     "{a: b}"],
)  # fmt: skip
def test_what_yaml_does_not_read_as_text_is_no_text(yaml_file, name, value):
    """A blank key would be the key 'None', and 0123 the key '83': an open server."""
    with pytest.raises(ConfigError, match=rf"penstock\.yaml: {name}: must be text; quote it"):
        read(config=yaml_file(f"{name}: {value}\n"), environ={"PENSTOCK_PORT": "1"})


def test_quoted_numbers_are_text(yaml_file):
    """As the refusal says."""
    settings = read(config=yaml_file("api_key: ['0123', \"true\"]\nserved_model_name: '7'\n"))
    assert [key.value for key in settings.api_key] == ["0123", "true"]
    assert settings.served_model_name == ("7",)


def test_an_empty_host_is_refused():
    """It would be every address."""
    with pytest.raises(ConfigError, match="--host: must not be empty"):
        read({"host": ""}, {"PENSTOCK_API_KEY": "k"})


def test_one_setting_in_two_spellings_is_refused(yaml_file):
    """Neither can be the one that was meant."""
    with pytest.raises(ConfigError, match="max_running is given twice"):
        read(config=yaml_file("max-running: 8\nmax_running: 9\n"))


def test_a_missing_file_is_refused(tmp_path):
    """Silence would mean that its settings are ignored."""
    with pytest.raises(ConfigError, match="cannot read"):
        read(config=tmp_path / "none.yaml")


def test_service_variables_of_kubernetes_are_not_settings():
    """A Service named penstock puts them into every pod."""
    links = {
        "PENSTOCK_SERVICE_HOST": "10.0.0.1",
        "PENSTOCK_SERVICE_PORT_HTTP": "80",
        "PENSTOCK_PORT": "tcp://10.0.0.1:80",
        "PENSTOCK_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert read(environ=links) == Settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_hosts_need_a_key(host):
    """Nobody publishes a model by a typo."""
    with pytest.raises(ConfigError, match="without an API key"):
        read({"host": host})
    assert read({"host": host}, {"PENSTOCK_API_KEY": "k"}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_this_machine(host):
    """In all its spellings."""
    assert is_loopback(host)


def test_a_step_must_leave_room_for_a_prompt():
    """Told before anything is loaded, with both flags."""
    with pytest.raises(ConfigError, match=r"--max-step-tokens is 512.*--max-running"):
        read({"max_running": "509", "max_step_tokens": "512"})
    most = read({"max_running": "508", "max_step_tokens": "512"})
    Limits(2048, most.max_running, most.max_step_tokens, 16, 128, 1000)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"cors_origin": ["https://chat.example.com/app"]}, "without a path"),
        ({"cors_origin": ["chat.example.com"]}, "without a path"),
        ({"cors_origin": ["null"]}, "without a path"),
        ({"cors_origin": ["*"]}, "without an API key"),
        ({"allowed_host": ["api.example.com:443"]}, "without a port"),
        ({"allowed_host": ["*"]}, "without a port"),
        ({"allowed_host": ["a.*.com"]}, "without a port"),
    ],
)
def test_impossible_origins_and_hosts_are_refused(flags, words):
    """Each would match no browser and no request, or everyone."""
    with pytest.raises(ConfigError, match=words):
        read(flags)


def test_origins_and_hosts_are_taken_as_browsers_write_them():
    """In lower case, whatever the scheme; all of them with a key."""
    origins = ["HTTP://Localhost:3000", "chrome-extension://abc", "http://[::1]:80"]
    assert read({"cors_origin": origins}).cors_origin == tuple(map(str.lower, origins))
    assert read({"cors_origin": ["*"], "api_key": ["k"]}).cors_origin == ("*",)
    hosts = ["API.example.com", "*.example.org", "10.0.0.7", "fe80::1"]
    assert read({"allowed_host": hosts}).allowed_host == tuple(map(str.lower, hosts))


def test_no_refusal_quotes_a_secret():
    """Wrong keys are still keys."""
    with pytest.raises(ConfigError) as refusal:
        read(environ={"PENSTOCK_API_KEY": "sk-very secret"})
    assert "sk-very" not in str(refusal.value)
    assert "sk-k" not in repr(read({"api_key": ["sk-k"]}))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"worker_token": "short"}, "16 or more"),
        ({"worker_token": "a secret with spaces"}, "without spaces"),
        ({"worker": ["localhost"]}, "HOST:PORT or unix:PATH"),
        ({"listen": "unix:relative"}, "HOST:PORT or unix:PATH"),
        ({"listen": "http://h:1"}, "HOST:PORT or unix:PATH"),
    ],
)
def test_impossible_addresses_and_tokens_are_refused(given, words):
    """Before anything is bound, and without the secret."""
    with pytest.raises(ConfigError, match=words) as refusal:
        read(given)
    assert "short" not in str(refusal.value)


def test_addresses_of_workers_are_ports_or_sockets():
    """Names, both kinds of numbers, and paths."""
    named = ["gpu-1:8010", "10.0.0.7:1", "[::1]:8010", "unix:/run/penstock/w.sock"]
    assert read({"worker": named}).worker == tuple(named)


def test_gateways_and_workers_need_a_secret_in_common():
    """Each is told what it lacks, in a sentence."""
    token = {"PENSTOCK_WORKER_TOKEN": "0123456789abcdef"}
    with pytest.raises(ConfigError, match="PENSTOCK_WORKER_TOKEN"):
        check_worker(read())
    with pytest.raises(ConfigError, match="--worker ADDRESS"):
        check_gateway(read(environ=token))
    with pytest.raises(ConfigError, match="given together"):
        check_worker(read({"worker_ca": "/ca.pem"}, token))
    for beyond in ("gpu-1:8010", "0.0.0.0:8010"):
        with pytest.raises(ConfigError, match="beyond this machine"):
            check_gateway(read({"worker": ["[::1]:1", beyond]}, token))
        with pytest.raises(ConfigError, match="beyond this machine"):
            check_worker(read({"listen": beyond}, token))
    check_worker(read(environ=token))
    check_gateway(read({"worker": ["127.0.0.1:1", "unix:/run/w"]}, token))


def test_a_worker_finds_the_token_and_none_of_our_settings():
    """API keys are not its business, and what it must know comes as flags."""
    environ = {"PATH": "/bin", "PENSTOCK_API_KEY": "k", "PENSTOCK_CONFIG": "/etc/p.yaml"}
    assert worker_environment("t", environ) == {"PATH": "/bin", "PENSTOCK_WORKER_TOKEN": "t"}


def test_a_worker_gets_the_engine_that_was_chosen():
    """The flags say the same again; what is the gateway's own is left out."""
    given = {
        "served_model_name": ["a", "b,c"], "engine": "ledger", "max_running": "7",
        "model_dir": "/models/x", "port": "1", "api_key": ["k"], "replicas": "3",
    }  # fmt: skip
    chosen = engine_arguments(read(given))
    assert chosen == (
        "--served-model-name=a", "--served-model-name=b,c", "--engine=ledger", "--max-running=7",
        "--", "/models/x",
    )  # fmt: skip
    assert engine_arguments(read()) == ()
    divided = engine_arguments(read({"tensor_parallel": "2", "cuda_graphs": "never"}))
    assert divided == ("--cuda-graphs=never", "--tensor-parallel=2")
    assert engine_arguments(read({"worker_ca": "/ca.pem"})) == ()  # one machine needs no TLS
    here = read({"model_dir": "models/x"})
    assert engine_arguments(here) == ("--", str(Path.cwd() / "models" / "x"))


def test_every_setting_has_a_command_that_reads_it():
    """And the token is a flag of none: other users of a machine see flags."""
    read_by = {entry.name for one in ("serve", "gateway", "worker") for entry in flags_of(one)}
    assert read_by == {entry.name for entry in setting_fields()} - {"worker_token"}
    assert len(setting_fields()) <= 60


def test_every_setting_is_documented_as_it_is():
    """The reference has one row per setting, with its variable, default, unit and words."""
    rows = [reference_row(field) for field in setting_fields()]
    text = DOC.read_text()
    missing = [row for row in rows if row not in text]
    assert not missing, "docs/configuration.md lacks:\n" + "\n".join(missing)


def reference_row(field):
    default = field.default if field.default not in (None, ()) else "none"
    return (
        f"| `{field.name}` | `PENSTOCK_{field.name.upper()}` | {default} |"
        f" {field.metadata['unit'] or '-'} | {field.metadata['doc']} |"
    )
