"""Every refusal on every route: the nested object, its status, its headers."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from gateway.setting_kinds import Secret
from tests.support.live import Raw, chat, eventually, live, test_settings
from tests.support.messages import anthropic_error_of
from tests.support.routes import api_routes, filled, takes

KEY = "sk-right-key"
ROUTES = [(route.method, filled(route.path, model="ledger")) for route in api_routes()]
POST = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
DOCS = {path for _, path in ROUTES if path.startswith("/docs")} | {"/openapi.json"}
PUBLIC = {"/livez", "/readyz", "/health"} | DOCS


@pytest.fixture(scope="module")
def server():
    with live() as server:
        yield server


@pytest.fixture(scope="module")
def guarded():
    with live(test_settings(api_key=(Secret(KEY),))) as server:
        yield server


@pytest.fixture(scope="module")
def http(server):
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
        yield client


def error_of(response):
    """The nested object, checked for its shape."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert response.headers["x-should-retry"] in ("true", "false")
    body = response.json()
    if response.request.url.path.startswith("/v1/messages"):
        return anthropic_error_of(response)
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert isinstance(error["code"], str)
    assert isinstance(error["type"], str)
    return error


@pytest.mark.parametrize(
    ("method", "path", "wrong"),
    [
        (method, path, wrong)
        for method, path in ROUTES
        for wrong in ("PUT", "DELETE", "PATCH")
        if not takes(wrong, path)
    ],
)
def test_a_wrong_method_is_405(http, method, path, wrong):
    """On every route, with what is allowed."""
    response = http.request(wrong, path)
    assert response.status_code == 405
    assert method in response.headers["allow"]
    assert error_of(response)["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/", "/v1", "/nope", "/v1/nope", "/v1/chat", "/redoc"])
def test_an_unknown_route_is_404(http, path):
    """Also what frameworks serve by default."""
    response = http.get(path)
    assert response.status_code == 404
    assert error_of(response)["code"] == "unknown_url"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({"content-type": "text/plain"}, b"{}", 415, "unsupported_media_type"),
        ({}, b"{}", 415, "unsupported_media_type"),
        ({"content-type": "multipart/form-data; boundary=x"}, b"{}", 415, "unsupported_media_type"),
        ({"content-encoding": "gzip"}, b"\x1f\x8b", 415, "unsupported_media_type"),
        ({"content-encoding": "br, gzip"}, b"x", 415, "unsupported_media_type"),
        (None, b"x" * (3 << 20), 413, "request_too_large"),
        (None, b"", 400, "invalid_json"),
        (None, b"{", 400, "invalid_json"),
        (None, b"[]", 400, "invalid_json"),
        (None, b"\xff\xfe", 400, "invalid_json"),
        (None, b'{"model": "nope", "messages": [], "prompt": "x"}', 404, "model_not_found"),
        (None, b'{"model": 5}', 400, "invalid_value"),
    ],
)
def test_a_bad_body_is_refused(http, path, headers, content, status, code):
    """Media, encoding, size, syntax, model: each with its own status."""
    sent = {"content-type": "application/json"} if headers is None else headers
    if "content-encoding" in sent:
        sent["content-type"] = "application/json"
    response = http.post(path, content=content, headers=sent)
    assert response.status_code == status, response.text
    assert error_of(response)["code"] == code
    assert response.headers["x-should-retry"] == "false"


def test_an_unknown_model_card_is_404(http):
    """Also one with slashes, and never with the name repeated."""
    response = http.get("/v1/models/some/other-model")
    assert response.status_code == 404
    error = error_of(response)
    assert error["code"] == "model_not_found"
    assert "other-model" not in response.text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/chat/completions/",
        "/chat/completions",
        "/chat/completions/",
        "/v1/v1/chat/completions",
    ],
)
def test_every_spelling_of_a_path_answers(http, path):
    """No redirect: SDKs lose the body on one."""
    response = http.post(path, json=chat(), follow_redirects=False)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("given", ["my-id_1.2", "x" * 128])
def test_the_request_id_is_echoed(http, given):
    """On answers, refusals and streams."""
    for request in (
        http.build_request("GET", "/v1/models"),
        http.build_request("GET", "/nope"),
        http.build_request("POST", "/v1/chat/completions", json=chat(stream=True)),
    ):
        request.headers["x-request-id"] = given
        assert http.send(request).headers["x-request-id"] == given


def test_two_calls_with_one_request_id_are_two_calls(http):
    """The client's id names nothing inside."""
    with ThreadPoolExecutor(8) as pool:
        bodies = [chat(str(i), max_tokens=64) for i in range(8)]
        send = lambda body: http.post(  # noqa: E731 - one line for a pool
            "/v1/chat/completions", json=body, headers={"x-request-id": "same"}
        )
        answers = list(pool.map(send, bodies))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 8


def test_unknown_fields_are_ignored_and_listed(http):
    """Names that could not stand in a header are left out."""
    body = chat(foo=1, **{"bar-baz": 2, "e\r\nvil: 1": 3, "ü": 4})
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    listed = response.headers["x-ignored-params"].split(", ")
    assert {"foo", "bar-baz"} <= set(listed)
    assert all(name.isascii() and ":" not in name for name in listed)


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("GET", "/nope"), ("GET", "/v1/nope")])
@pytest.mark.parametrize("key", [None, "sk-wrong", "sk-right-key2"])
def test_every_route_but_the_public_ones_needs_a_key(guarded, method, path, key):
    """Unknown routes too: a stranger learns nothing."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{guarded.port}{path}"
    response = httpx2.request(method, url, headers=headers)
    if path in PUBLIC:
        assert response.status_code == 200
        return
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert error_of(response)["code"] == "invalid_api_key"


def test_the_right_key_opens_every_route(guarded):
    """And the key is never in an answer."""
    headers = {"authorization": f"Bearer {KEY}"}
    for method, path in ROUTES:
        body = {"json": chat(prompt="x")} if method == "POST" else {}
        url = f"http://127.0.0.1:{guarded.port}{path}"
        with httpx2.stream(method, url, headers=headers, **body) as response:
            # A body for chat is a bad request elsewhere, but never a stranger's.
            assert response.status_code in {200, 400, 404}, path
            # /events goes on for as long as the process does: its first piece must do.
            assert KEY not in next(response.iter_text(), "")


def test_metrics_can_be_made_public():
    """A scraper without a key, when the operator says so."""
    with live(test_settings(api_key=(Secret(KEY),), metrics_public=True)) as server:
        assert httpx2.get(f"http://127.0.0.1:{server.port}/metrics").status_code == 200
        assert httpx2.get(f"{server.url}/models").status_code == 401


def test_a_full_queue_is_429_with_retry_headers():
    """One place, taken: the next one is told when to come back, within milliseconds."""
    settings = test_settings(max_running=1, max_queued_requests=0)
    with live(settings) as server, Raw(server.port) as first:
        server.runner.may_step.clear()
        first.send("POST", "/v1/chat/completions", chat(stream=True))
        first.read_until(b"assistant")
        response = httpx2.post(f"{server.url}/chat/completions", json=chat())
        assert response.status_code == 429
        assert error_of(response)["code"] == "queue_full"
        assert int(response.headers["retry-after"]) >= 1
        assert int(response.headers["retry-after-ms"]) >= 1000
        assert response.headers["x-should-retry"] == "true"
        server.runner.may_step.set()
        first.read_until(b"[DONE]")
        eventually(server.quiet)
        assert httpx2.post(f"{server.url}/chat/completions", json=chat()).status_code == 200


def test_a_body_that_does_not_arrive_is_408():
    """Its connection is closed: the rest could otherwise be read as a request."""
    with live(test_settings(body_timeout_s=0.2)) as server, Raw(server.port) as slow:
        slow.socket.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        )
        got, _ = slow.read_to_end()
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408")
        assert json.loads(body)["error"]["code"] == "request_timeout"


def test_a_head_that_does_not_arrive_ends_its_connection():
    """From the first byte, before it, and after an answer."""
    with live(test_settings(header_timeout_s=0.3)) as server:
        for sent in (b"", b"GET /livez HTT", b"GET /livez HTTP/1.1\r\nhost: x\r\nx: "):
            with Raw(server.port) as half_open:
                half_open.socket.sendall(sent)
                assert half_open.read_to_end() == (b"", False)
        assert httpx2.get(f"http://127.0.0.1:{server.port}/livez").status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET /livez HTTP/1.1\r\nx: " + b"a" * 70_000, b"431"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n", b"400"),
        (POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (POST + b"content-length: -1\r\n\r\n", b"400"),
    ],
)
def test_what_is_not_a_sane_request_is_refused_and_closed(server, sent, status):
    """Giant heads, other protocols, smuggling: the nested object, then the end."""
    with Raw(server.port) as raw:
        raw.socket.sendall(sent)
        got, _ = raw.read_to_end()
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == status, got[:200]
    assert b"connection: close" in head
    assert b"x-request-id: req-" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert httpx2.get(f"http://127.0.0.1:{server.port}/livez").status_code == 200


@pytest.mark.parametrize("size", [1, 60_000, 70_000, 200_000, 1_000_000])
@pytest.mark.parametrize("pause", [False, True])
def test_a_body_of_any_size_is_not_a_head(server, size, pause):
    """However its bytes fall into reads, and twice on one connection."""
    body = json.dumps({"model": "ledger", "prompt": "x" * size, "max_tokens": -1}).encode()
    head = POST + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    with Raw(server.port) as raw:
        for _ in range(2):
            raw.socket.sendall(head)
            if pause:
                time.sleep(0.01)
            raw.socket.sendall(body)
            assert raw.read_until(b"}}").startswith(b"HTTP/1.1 400")


def test_too_many_connections_are_refused():
    """Those that are open go on."""
    with live(test_settings(max_connections=4)) as server:
        held = [Raw(server.port) for _ in range(4)]
        for raw in held:
            raw.send("GET", "/livez")
            raw.read_until(b"alive")
        with Raw(server.port) as late:
            late.send("GET", "/livez")
            got, _ = late.read_to_end()
        assert b"503" in got.split(b"\r\n")[0]
        assert b"too_many_connections" in got
        assert b"\r\nretry-after: 1\r\nretry-after-ms: 1000\r\n" in got
        assert b"\r\nx-should-retry: true\r\n" in got
        held[0].send("GET", "/livez")
        assert b"alive" in held[0].read_until(b"alive")
        for raw in held:
            raw.socket.close()


def test_a_public_host_name_is_421_without_keys(http):
    """DNS rebinding; with keys the key is what counts."""
    response = http.get("/v1/models", headers={"host": "evil.example"})
    assert response.status_code == 421
    assert error_of(response)["code"] == "host_not_allowed"


def test_any_host_name_is_served_with_a_key(guarded):
    """Behind a proxy it has a public name."""
    headers = {"host": "api.example.com", "authorization": f"Bearer {KEY}"}
    assert httpx2.get(f"{guarded.url}/models", headers=headers).status_code == 200


def test_an_upgrade_is_not_taken(server):
    """There are no websockets here; the request is answered as it stands."""
    with Raw(server.port) as raw:
        raw.send("GET", "/livez", headers=("connection: upgrade", "upgrade: websocket"))
        assert raw.read_until(b"alive").startswith(b"HTTP/1.1 200")


def test_a_bug_of_ours_is_500_without_its_words(server, http, monkeypatch):
    """The log has it; the client gets an id."""

    def broken(_):
        raise RuntimeError("secret inner words")

    monkeypatch.setattr("gateway.rest.models.list_body", broken)
    response = http.get("/v1/models")
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
    assert "secret" not in response.text
