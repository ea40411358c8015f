"""Bad input is a 4xx in milliseconds, with nothing started in the engine."""

import gzip
import json
import threading
import time
from itertools import product

import psutil
import pytest

from openai_compat.body import parse_body
from tests.support.live import Raw, chat, eventually, live

MIB = 1 << 20
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def server():
    with live() as server:
        yield server


def post(server, path, body, headers=()):
    """Status, error object and seconds of one raw request."""
    with Raw(server.port) as raw:
        began = time.monotonic()
        raw.send("POST", path, body, headers)
        got = raw.read_until(b"\r\n\r\n")
        took = time.monotonic() - began
        head, _, rest = got.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        rest += raw.read(length - len(rest))
    return int(head.split(b" ")[1]), json.loads(rest).get("error"), took


def refused(server, path, body, headers=()):
    """Send it; check that the engine saw nothing and that it was quick; the error."""
    before = server.load()
    status, error, took = post(server, path, body, headers)
    assert 400 <= status < 500, (status, error)
    assert server.load() == before, "the engine was touched"
    assert took < 0.5, f"took {took:.3f} s"
    return status, error


VALUES = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"1e308", b"9223372036854775808",
    b"1" * 4000, b'"1"', b"[]", b"{}", b"true",
)  # fmt: skip
FIELDS = ("max_tokens", "temperature", "top_p", "n", "seed", "presence_penalty", "logit_bias")
LEGAL = {("seed", b"-1"), ("presence_penalty", b"-1"), ("logit_bias", b"{}")}


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize(
    ("field", "value"), [pair for pair in product(FIELDS, VALUES) if pair not in LEGAL]
)
def test_extreme_values_are_refused(server, path, field, value):
    """Each kind of number and wrong type, in each kind of field."""
    base = {"model": "ledger", "prompt": "x"} if path == COMPLETION else chat()
    base.pop(field, None)
    body = json.dumps(base)[:-1].encode() + b', "' + field.encode() + b'": ' + value + b"}"
    status, error = refused(server, path, body)
    assert status == 400
    assert error["code"] == "invalid_json" or field in (error["param"] or ""), error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": None}, "messages"),
        ({"n": 10_000}, "n"),
        ({"stop": ["x"] * 100}, "stop"),
        ({"stop": "x" * 100_000}, "stop"),
        ({"logit_bias": {str(i): 1 for i in range(5000)}}, "logit_bias"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"logprobs": True, "top_logprobs": 10_000}, "top_logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_limits_name_their_field(server, fields, param):
    """Beyond a cap, or a field that is not built yet: 400 with `param`."""
    status, error = refused(server, CHAT, chat(**fields))
    assert status == 400
    assert error["param"] is not None, error
    assert error["param"].startswith(param), error


def test_an_over_long_prompt_is_context_length_exceeded(server):
    """Before any header of a stream."""
    for stream in (False, True):
        status, error = refused(server, CHAT, chat("word " * 5000, stream=stream))
        assert (status, error["code"]) == (400, "context_length_exceeded")
        assert "2048" in error["message"]


@pytest.mark.parametrize("opener", [b"[", b'{"a":', b'[{"a":'])
def test_deep_nesting_is_refused(server, opener):
    """At any depth, without recursion."""
    body = opener * (MIB // len(opener))
    status, error = refused(server, CHAT, body)
    assert (status, error["code"]) == (400, "invalid_json")


def test_lone_surrogates_are_refused(server):
    """They have no UTF-8."""
    body = b'{"model":"ledger","messages":[{"role":"user","content":"\\ud800"}]}'
    assert refused(server, CHAT, body)[0] == 400


def test_a_ten_mebibyte_body_is_refused_without_being_kept(server):
    """By its declared length, or when the limit is passed; memory stays flat."""
    process = psutil.Process()
    body = b'{"model":"' + b"x" * (10 * MIB) + b'"}'
    before = process.memory_info().rss
    for _ in range(3):
        status, error = refused(server, CHAT, body)
        assert (status, error["code"]) == (413, "request_too_large")
    assert process.memory_info().rss - before < 20 * MIB


def test_an_endless_chunked_body_is_refused_and_cut(server):
    """No length declared: counted while it comes, and not listened to for ever."""
    with Raw(server.port) as raw:
        raw.socket.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        sent = 0
        try:
            while sent < 200 * MIB:
                raw.socket.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
    assert 2 * MIB < sent < 150 * MIB


def test_a_compressed_bomb_is_not_unpacked(server):
    """Compression is refused by its header."""
    bomb = gzip.compress(b"0" * (10 * MIB))
    status, _ = refused(server, CHAT, bomb, ["content-encoding: gzip"])
    assert status == 415


def test_big_bodies_do_not_hold_up_the_loop(server, monkeypatch):
    """While one is being lowered, for however long, the loop answers others."""
    lowering, may_go_on = threading.Event(), threading.Event()

    def held(raw):
        lowering.set()
        assert may_go_on.wait(20)
        return parse_body(raw)

    monkeypatch.setattr("gateway.rest.calls.parse_body", held)
    body = json.dumps({"model": "ledger", "prompt": "lorem ipsum " * (MIB // 12)}).encode()
    with Raw(server.port) as heavy, Raw(server.port) as light:
        light.socket.settimeout(5)  # less than a loop that lowers would stand still
        heavy.send("POST", COMPLETION, body)
        assert lowering.wait(10)
        try:
            light.send("GET", "/livez")
            assert light.read_until(b"alive").startswith(b"HTTP/1.1 200")
        finally:
            may_go_on.set()
        assert heavy.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_nothing_of_all_this_is_left(server):
    """The engine idles as it began."""
    eventually(server.quiet)
    assert server.load().blocks_used == 0
