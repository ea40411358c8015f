"""Refusals to Anthropic's clients: their shape, whoever refuses, and the ids on everything."""

import threading
import time

import httpx2
import pytest

from gateway.setting_kinds import Secret
from tests.support.live import MODEL, Raw, chat, eventually, ledger_opener, live, test_settings
from tests.support.messages import anthropic_error_of

KEY = "sk-right-key"
PATHS = ["/v1/messages", "/v1/messages/count_tokens"]
VERSION = {"anthropic-version": "2023-06-01"}


def ask(**fields):
    return chat(**{**fields, "temperature": fields.get("temperature", 0)})


@pytest.fixture(scope="module")
def http():
    with (
        live(test_settings(api_key=(Secret(KEY),))) as server,
        httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client,
    ):
        client.headers["x-api-key"] = KEY
        yield client


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("sent", "status", "kind", "code"),
    [
        ({"json": {"model": "nope"}}, 404, "not_found_error", "model_not_found"),
        ({"json": {"model": MODEL, "max_tokens": 5}}, 400, "invalid_request_error", None),
        ({"content": b"{"}, 400, "invalid_request_error", "invalid_json"),
        ({"content": b"x" * (3 << 20)}, 413, "request_too_large", "request_too_large"),
        (
            {"content": b"x", "headers": {"content-type": "text/plain"}},
            415, "invalid_request_error", "unsupported_media_type",
        ),
        (
            {"headers": {"x-api-key": "wrong"}},
            401, "authentication_error", "invalid_api_key",
        ),
        (
            {"headers": {"authorization": f"Bearer {KEY}"}},
            401, "authentication_error", "invalid_api_key",
        ),
    ],
)  # fmt: skip
def test_a_refused_call(http, path, sent, status, kind, code):
    """Two credentials are one too many, also when both are good."""
    headers = {"content-type": "application/json", **sent.get("headers", {})}
    response = http.post(path, **{**sent, "headers": headers})
    assert response.status_code == status, response.text
    error = anthropic_error_of(response)
    assert error["type"] == kind
    assert code in (None, error["code"])
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("PUT", "/v1/messages/count_tokens", 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("POST", "/messages/batches", 404, "not_found_error"),
        ("GET", "/v1/messages/", 405, "invalid_request_error"),
    ],
)
def test_what_the_router_refuses(http, method, path, status, kind):
    """Every spelling of a path below /v1/messages is Anthropic's, known or not."""
    response = http.request(method, path)
    assert response.status_code == status
    assert anthropic_error_of(response)["type"] == kind


def test_other_routes_answer_in_the_dialect_that_the_client_says_it_speaks(http):
    """Its SDKs say `anthropic-version` on whatever they send; nobody else does."""
    theirs = http.get("/v1/files", headers=VERSION)
    assert theirs.status_code == 404
    assert anthropic_error_of(theirs)["type"] == "not_found_error"
    ours = http.get("/v1/files")
    assert "request-id" not in ours.headers
    assert set(ours.json()) == {"error"}


@pytest.mark.parametrize("path", ["/v1/messages", "/messages", "/v1/v1/messages", "/v1/messages/"])
def test_every_spelling_of_the_path_answers(http, path):
    """No redirect, and the request id under both names, on streams too."""
    for stream in (False, True):
        response = http.post(path, json=ask(stream=stream), headers={"x-request-id": "mine"})
        assert response.status_code == 200, response.text
        assert response.headers["request-id"] == response.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("key", [{"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}])
def test_a_key_is_good_in_either_header_on_every_route(http, key):
    """The same key is the same tenant: what one header cached, the other finds."""
    bare = httpx2.Client(base_url=http.base_url, headers=key)
    with bare:
        assert bare.get("/v1/models").status_code == 200
        body = {**ask(text="the same long words for both keys " * 4), "max_tokens": 1}
        bare.post("/v1/messages", json=body)
        usage = bare.post("/v1/messages", json=body).json()["usage"]
        assert usage["cache_read_input_tokens"] > 0


def test_unknown_fields_are_listed(http):
    """Also those deep inside, and on the route that counts."""
    body = ask(foo=1, metadata={"team": "x"})
    response = http.post("/v1/messages", json=body)
    assert response.headers["x-ignored-params"] == "foo, metadata.team"
    response = http.post("/v1/messages/count_tokens", json=body)
    assert "foo" in response.headers["x-ignored-params"]


def test_counting_long_prompts_stays_off_the_loop(http):
    """A megabyte is counted while short calls are answered."""
    long = ask(text="many words " * 80_000)
    slow = threading.Thread(target=lambda: http.post("/v1/messages/count_tokens", json=long))
    slow.start()
    began = time.monotonic()
    assert http.get("/livez").status_code == 200
    assert time.monotonic() - began < 5
    slow.join(60)
    counted = http.post("/v1/messages/count_tokens", json=long).json()["input_tokens"]
    assert counted > 100_000
    assert http.post("/v1/messages", json=long).status_code == 400


@pytest.fixture
def full_server():
    """One place, taken by a stream that stands still until `may_step` is set."""
    with live(test_settings(max_running=1, max_queued_requests=0)) as server:
        url = f"http://127.0.0.1:{server.port}/v1/messages"
        server.runner.may_step.clear()
        with httpx2.stream("POST", url, json=ask(stream=True), timeout=20):
            eventually(lambda: not server.quiet())
            yield url
            server.runner.may_step.set()


def test_a_full_queue_is_a_rate_limit(full_server):
    """429 with when to come back."""
    response = httpx2.post(full_server, json=ask())
    assert response.status_code == 429
    assert anthropic_error_of(response)["type"] == "rate_limit_error"
    assert response.headers["x-should-retry"] == "true"
    assert int(response.headers["retry-after"]) >= 1


def test_a_loading_server_is_overloaded():
    """503, which their SDKs retry."""
    go = threading.Event()
    runners = []

    def slow(*args):
        go.wait(20)
        return ledger_opener(runners, *args)

    with live(test_settings(), wait=False, opener=slow) as server:
        try:
            url = f"http://127.0.0.1:{server.port}/v1/messages"
            response = httpx2.post(url, json=ask())
            assert response.status_code == 503
            assert anthropic_error_of(response)["type"] == "overloaded_error"
            assert response.headers["retry-after"]
        finally:
            go.set()


def test_a_body_that_does_not_arrive_is_a_timeout():
    """408, told in their words before the connection ends."""
    with live(test_settings(body_timeout_s=0.3)) as server, Raw(server.port) as raw:
        raw.socket.sendall(
            b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        answer, _ = raw.read_to_end()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 408 " in head.splitlines()[0]
    assert b'"type":"timeout_error"' in body


def test_a_stream_that_fails_is_cut_after_its_error():
    """The error event is the last thing, and the body has no end: nobody can take it for whole."""
    with live(test_settings()) as server, Raw(server.port) as raw:
        raw.send("POST", "/v1/messages", ask(stream=True, max_tokens=1000))
        seen = raw.read_until(b"content_block_delta")
        server.runner.broken.set()
        rest, _ = raw.read_to_end()
    events = (seen + rest).split(b"event: ")
    assert events[-1].startswith(b'error\ndata: {"type":"error","error":{"type":"api_error"')
    assert b"message_stop" not in seen + rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert b"secret" not in rest


def test_a_bug_of_ours_says_nothing_but_its_id(http, monkeypatch):
    """500 api_error, without a word of the exception."""

    def broken(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("gateway.rest.calls.parse_body", broken)
    response = http.post("/v1/messages", json=ask())
    assert response.status_code == 500
    assert anthropic_error_of(response)["type"] == "api_error"
    assert "secret" not in response.text
