"""Small decisions as values: paths, request ids, KV sizes, log lines, retry headers."""

import io
import json
import logging
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

import gateway
from engines.api import EngineLoad, TierLoad
from engines.errors import EngineDied, ModelRejected
from gateway.edge import canonical
from gateway.exchange import Exchange, request_id
from gateway.framing import check_framing
from gateway.host_guard import HostGuard
from gateway.kv_budget import KvNeed, plan_kv
from gateway.lifecycle import Lifecycle, Phase
from gateway.logs import JsonFormatter
from gateway.metrics import Metrics
from gateway.replies import error_response
from openai_compat.errors import Overloaded, RequestRejected, Unavailable
from tests.support.fake_engine import FakeEngine

GIB = 1 << 30
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/models", "/v1/models"),
        ("/v1/v1/models", "/v1/models"),
        ("/v1/v1/v1/chat/completions/", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/livez", "/livez"),
        ("/readyz/", "/readyz"),
        ("/metrics", "/metrics"),
        ("/", "/"),
        ("/v1", "/v1"),
        ("/v1/models/a/b", "/v1/models/a/b"),
    ],
)
def test_every_spelling_of_a_path_is_one_route(path, route):
    """With /v1, without, doubled, or with a slash at the end."""
    assert canonical(path) == route


def check_host(*hosts, allowed=(), keyless=True, probe=False):
    headers = [(b"accept", b"x"), *((b"host", host.encode()) for host in hosts)]
    HostGuard(allowed, keyless=keyless).check({"headers": headers}, probe=probe)


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7", "box", "box:80",
     "a.localhost", "box.local:8000", "host.docker.internal", "LOCALHOST.", ""],
)  # fmt: skip
def test_private_hosts_are_served(host):
    """However a user of this machine spells it."""
    check_host(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.com", "1.2.3"],
)
@pytest.mark.parametrize("probe", [False, True])
def test_public_hosts_are_refused_without_keys(host, probe):
    """They may be a web page's own name, pointed at this machine."""
    with pytest.raises(RequestRejected) as refusal:
        check_host(host, probe=probe)
    assert refusal.value.reply.status == 421


@pytest.mark.parametrize("keyless", [False, True])
@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("api.example.com", True),
        ("API.example.com.:443", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("api.example.com.evil.net", False),
        ("10.0.0.7", False),
        ("box", False),
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("", False),
    ],
)
def test_listed_hosts_are_served_and_no_others(host, served, keyless):
    """With keys and without; this machine's own names need no listing."""
    listed = {"allowed": ("api.example.com", "*.example.org"), "keyless": keyless}
    check_host(host, **listed, probe=True)
    if served:
        check_host(host, **listed)
        return
    with pytest.raises(RequestRejected) as refusal:
        check_host(host, **listed)
    assert (refusal.value.reply.status, refusal.value.reply.code) == (421, "host_not_allowed")


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.1", []),
        ("1.1", [(b"host", b"a"), (b"host", b"a")]),
        ("1.0", [(b"host", b"a"), (b"host", b"b")]),
        ("2.0", [(b"host", b"a")]),
        ("1.0", [(b"transfer-encoding", b"chunked")]),
        ("1.1", [(b"host", b"a"), (b"transfer-encoding", b"gzip, chunked")]),
        ("1.1", [(b"host", b"a"), *[(b"transfer-encoding", b"chunked")] * 2]),
    ],
)
def test_a_head_that_others_may_read_otherwise_is_malformed(version, headers):
    """Two parties on the way could take it for two different requests."""
    with pytest.raises(RequestRejected) as refusal:
        check_framing({"http_version": version, "headers": headers})
    assert (refusal.value.reply.status, refusal.value.reply.code) == (400, "malformed_http")


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.0", []),
        ("1.0", [(b"host", b"a")]),
        ("1.1", [(b"host", b""), (b"transfer-encoding", b"Chunked ")]),
    ],
)
def test_a_plain_head_passes(version, headers):
    """Also the old and the empty."""
    check_framing({"http_version": version, "headers": headers})


@pytest.mark.parametrize("given", [b"abc", b"A-1._z", b"x" * 128])
def test_a_sane_request_id_is_kept(given):
    """So that a client finds its own request in our log."""
    assert request_id([(b"x-request-id", given)]) == given.decode()


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\r\nb", b'"}', "ü".encode(), b"a/b"])
def test_any_other_request_id_is_replaced(given):
    """It would stand in headers and log lines."""
    made = request_id([(b"x-request-id", given)])
    assert made.startswith("req-")
    assert made != request_id([])


def test_the_kv_cache_takes_what_is_asked_for():
    """Whole blocks within the bytes given."""
    need = KvNeed(token_bytes=1024, block_size=16, max_running=64, context=4096)
    assert plan_kv(need, asked_bytes=100 * 16 * 1024 + 5, room_bytes=0).blocks == 100


def test_the_kv_cache_takes_the_room_there_is_by_default():
    """And never more than could be filled."""
    need = KvNeed(token_bytes=131_072, block_size=16, max_running=64, context=131_072)
    assert plan_kv(need, asked_bytes=0, room_bytes=8 * GIB).blocks == 4096
    small = KvNeed(token_bytes=1024, block_size=16, max_running=2, context=100)
    assert plan_kv(small, asked_bytes=0, room_bytes=8 * GIB).blocks == 14


def test_a_small_kv_cache_cuts_the_context_and_says_so():
    """A request that can never fit is refused by its length, with the flag in sight."""
    need = KvNeed(token_bytes=1024, block_size=16, max_running=4, context=4096)
    budget = plan_kv(need, asked_bytes=10 * 16 * 1024, room_bytes=0)
    assert budget.context == 160
    assert "context cut from 4096 to 160 (--kv-cache-memory)" in str(budget)


def test_a_kv_cache_without_a_block_is_refused():
    """With the two flags that help."""
    need = KvNeed(token_bytes=1024, block_size=16, max_running=4, context=4096)
    with pytest.raises(ModelRejected, match="--kv-cache-memory"):
        plan_kv(need, asked_bytes=1024, room_bytes=0)


def log_line(log):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")  # noqa: LOG001 - one of its own, so nothing else hears it
    logger.addHandler(handler)
    log(logger)
    return stream.getvalue()


@pytest.mark.parametrize("text", ['a"b', "a\r\nb", "\u2028", "\ud800", "{}"])
def test_a_log_record_is_one_json_line(text):
    """Whatever its text."""
    line = log_line(lambda log: log.info(text, extra={"facts": {"model": text}}))
    assert line.count("\n") == 1
    assert json.loads(line)["model"] == text


def test_a_logged_error_shows_its_place_not_its_words():
    """A message of someone else's may hold a prompt; ours are catalogued."""
    failure = EngineDied("step failed")
    failure.__cause__ = ValueError("the prompt was: my secret")

    def log_both(log):
        try:
            raise failure
        except EngineDied:
            log.exception("fault")

    line = log_line(log_both)
    assert "secret" not in line
    described = json.loads(line)["error"]
    assert described["message"] == "step failed"
    assert described["cause"]["type"] == "builtins.ValueError"
    assert "log_both" in described["stack"][0]


def test_a_request_line_has_no_model_fields_before_there_is_a_model():
    """A refused body is a short line."""
    assert "model" not in Exchange("id", "POST", 1.0).facts(2.0)


def test_retry_headers_are_what_the_sdks_read():
    """Seconds rounded up, milliseconds exact, and a word on retrying at all."""
    headers = error_response(Overloaded("full", retry_after_s=1.25)).headers
    assert headers["retry-after"] == "2"
    assert headers["retry-after-ms"] == "1250"
    assert headers["x-should-retry"] == "true"
    assert error_response(ValueError("x")).headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "unknown_url"), (405, "method_not_allowed"), (418, "invalid_request")],
)
def test_what_the_router_raises_is_the_nested_object_too(status, code):
    """With a string code, and without its words."""
    response = error_response(HTTPException(status, "detail", {"Allow": "GET"}))
    error = json.loads(response.body)["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert "detail" not in error["message"]
    assert response.headers["allow"] == "GET"


def test_a_lifecycle_only_moves_forward():
    """Told to stop while loading, it never becomes ready."""
    life = Lifecycle()
    life.progress("weights")
    assert life.detail == "weights"
    with pytest.raises(Unavailable) as loading:
        life.serving()
    assert loading.value.reply.code == "loading"
    life.drain()
    life.ready(object())
    assert life.phase is Phase.DRAINING
    with pytest.raises(Unavailable) as draining:
        life.serving()
    assert draining.value.reply.code == "draining"


def test_the_version_is_the_distributions():
    """`--version` and the package say the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert gateway.__version__ == project["project"]["version"]


def test_every_metric_is_documented():
    """Under the name that a dashboard uses."""
    metrics = Metrics("test")
    tiers = tuple(TierLoad(tier, 1, 1) for tier in range(4))
    metrics.watch(lambda: replace(FakeEngine().load(), tiers=tiers), 16)
    text = (ROOT / "docs" / "operations.md").read_text()
    names = {family.name for family in metrics.registry.collect()}
    ours = {name for name in names if name.startswith("penstock_")}
    assert len(ours) > 15
    assert not [name for name in ours if name not in text]


def test_tiers_are_told_apart_by_name():
    """And one that a later worker has is left out: labels come from closed sets."""
    metrics = Metrics("test")
    tiers = (TierLoad(0, 7, 700), TierLoad(2, 5, 500, failures=3), TierLoad(3, 9, 900))
    metrics.watch(lambda: EngineLoad(0, 0, 0, 0, 0, tiers=tiers), 32)
    lines = metrics.text().decode().splitlines()
    told = {
        line
        for line in lines
        if line.startswith(("penstock_kv_tier_bytes", "penstock_kv_tier_failed"))
    }
    assert told == {
        'penstock_kv_tier_bytes{tier="device"} 700.0',
        'penstock_kv_tier_bytes{tier="disk"} 500.0',
        'penstock_kv_tier_failed_blocks_total{tier="device"} 0.0',
        'penstock_kv_tier_failed_blocks_total{tier="disk"} 3.0',
    }


def test_tokens_in_flight_are_those_in_blocks_and_those_that_wait():
    """What more workers would take: nothing else tells a long prompt from a short one."""
    metrics = Metrics("test")
    load = EngineLoad(running=2, waiting=1, waiting_tokens=70, blocks_used=5, blocks_total=64)
    metrics.watch(lambda: load, 32)
    assert b"\npenstock_tokens_in_flight 230.0\n" in metrics.text()
