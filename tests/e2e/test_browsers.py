"""What a browser, a proxy or an SDK asks around a call: CORS, OPTIONS, Host names, spellings."""

import httpx2
import pytest

from gateway.cross_origin import EXPOSED
from gateway.setting_kinds import Secret
from tests.support.live import MODEL, Raw, chat, eventually, live, test_settings
from tests.support.routes import api_routes, filled

KEY = "sk-right-key"
PAGE, OTHER = "https://chat.example.com", "https://evil.example"
STAINLESS = "authorization, content-type, x-stainless-os, x-stainless-retry-count, x-request-id"
ASK = {"access-control-request-method": "POST", "access-control-request-headers": STAINLESS}


@pytest.fixture(scope="module")
def closed():
    with live() as server, client(server) as http:
        yield http


@pytest.fixture(scope="module")
def server():
    settings = test_settings(
        api_key=(Secret(KEY),), cors_origin=(PAGE,), allowed_host=("api.example.com",)
    )
    with live(settings) as server:
        yield server


@pytest.fixture(scope="module")
def http(server):
    with client(server) as http:
        yield http


def client(server):
    return httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20)


def readable(response):
    """Whether a page of PAGE may read the response, and all of its headers that matter."""
    allowed = response.headers.get("access-control-allow-origin")
    exposed = response.headers.get("access-control-expose-headers", "").split(", ")
    assert (allowed is None) == (exposed == [""])
    assert "origin" in response.headers["vary"]
    assert response.headers["x-request-id"]
    return allowed == PAGE and set(exposed) == set(EXPOSED)


@pytest.mark.parametrize("route", api_routes(), ids=str)
def test_a_preflight_is_answered_without_a_key(http, route):
    """On every route; the browser sends the key only afterwards."""
    asked = {"origin": PAGE, "access-control-request-method": route.method, **ASK}
    response = http.options(filled(route.path), headers=asked)
    assert response.status_code == 204
    assert response.content == b""
    assert readable(response)
    assert route.method in response.headers["access-control-allow-methods"].split(", ")
    assert response.headers["access-control-allow-headers"] == STAINLESS
    assert int(response.headers["access-control-max-age"]) > 0


def test_a_preflight_of_another_page_is_refused(http):
    """In the same shape as everything else."""
    response = http.options("/v1/chat/completions", headers={"origin": OTHER, **ASK})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert not readable(response)


@pytest.mark.parametrize("origin", [PAGE, OTHER])
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/models", None, 200),
        ("POST", "/v1/chat/completions", chat(), 200),
        ("POST", "/v1/chat/completions", chat(stream=True), 200),
        ("POST", "/v1/chat/completions", chat(n=999), 400),
        ("POST", "/v1/chat/completions", chat(model="nope"), 404),
        ("GET", "/v1/nope", None, 404),
        ("PUT", "/v1/models", None, 405),
    ],
)
def test_every_answer_is_readable_for_the_page_and_for_no_other(
    http, origin, method, path, body, status
):
    """Errors and streams too; another page's browser keeps them to itself."""
    headers = {"origin": origin, "authorization": f"Bearer {KEY}"}
    response = http.request(method, path, json=body, headers=headers)
    assert response.status_code == status
    assert readable(response) == (origin == PAGE)


def test_a_missing_key_is_readable(http):
    """Or the page could not tell its user what is wrong."""
    response = http.get("/v1/models", headers={"origin": PAGE})
    assert response.status_code == 401
    assert readable(response)


def test_a_fault_is_readable(http, monkeypatch):
    """500 as well."""
    monkeypatch.setattr("gateway.rest.models.list_body", lambda _: 1 / 0)
    headers = {"origin": PAGE, "authorization": f"Bearer {KEY}"}
    response = http.get("/v1/models", headers=headers)
    assert response.status_code == 500
    assert readable(response)


def test_an_overload_is_readable_with_its_retry_headers():
    """429: the page has to know when to come back."""
    settings = test_settings(max_running=4, max_queued_requests=0, cors_origin=(PAGE,))
    with live(settings) as server, client(server) as http, Raw(server.port) as raw:
        server.runner.may_step.clear()
        raw.send("POST", "/v1/chat/completions", chat(n=4))
        eventually(lambda: server.serving.dispatcher.admission.sequences == 4)
        response = http.post("/v1/chat/completions", json=chat(), headers={"origin": PAGE})
        server.runner.may_step.set()
        raw.read_until(b"usage")
    assert response.status_code == 429
    assert readable(response)
    assert {"retry-after", "retry-after-ms", "x-should-retry"} <= set(response.headers)


def test_any_page_may_call_where_all_are_allowed():
    """With keys only; nothing varies then."""
    settings = test_settings(api_key=(Secret(KEY),), cors_origin=("*",))
    with live(settings) as server, client(server) as http:
        headers = {"origin": OTHER, "authorization": f"Bearer {KEY}"}
        response = http.get("/v1/models", headers=headers)
        assert response.headers["access-control-allow-origin"] == "*"
        assert "vary" not in response.headers
        response = http.options("/v1/models", headers={"origin": OTHER, **ASK})
        assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("origin", [{}, {"origin": PAGE, **ASK}])
@pytest.mark.parametrize("route", api_routes(), ids=str)
def test_options_tells_the_methods(closed, route, origin):
    """Without CORS too: 204 and Allow, and no page is let in."""
    response = closed.options(filled(route.path), headers=origin)
    assert response.status_code == 204
    assert {route.method, "OPTIONS"} <= set(response.headers["allow"].split(", "))
    assert not any(name.startswith("access-control") for name in response.headers)


def test_options_of_no_route_is_404(closed):
    """As any other method."""
    response = closed.options("/v1/nope")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")


def test_no_route_takes_options_itself():
    """OPTIONS passes the edge without a key, so nothing may be done for it."""
    assert not [route for route in api_routes() if route.method == "OPTIONS"]


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/v1/models", "api.example.com", 200),
        ("/v1/models", "api.example.com:443", 200),
        ("/v1/models", "evil.example", 421),
        ("/v1/chat/completions", "evil.example", 421),
        ("/v1/nope", "evil.example", 421),
        ("/readyz", "10.1.2.3:8000", 200),
    ],
)
def test_only_listed_hosts_are_served(http, path, host, status):
    """Whatever the route; probes come by address."""
    headers = {"host": host, "authorization": f"Bearer {KEY}"}
    response = http.get(path, headers=headers)
    assert response.status_code == status
    if status == 421:
        assert response.json()["error"]["code"] == "host_not_allowed"
        asked = {"host": host, "origin": PAGE, **ASK}
        assert http.options(path, headers=asked).status_code == 421


@pytest.mark.parametrize("route", api_routes(), ids=str)
def test_every_spelling_of_a_route_reaches_it(closed, route):
    """With /v1, without, doubled, with a slash at the end: never a redirect, never 404."""
    path = filled(route.path, model=MODEL)
    spellings = {path, f"{path}/"}
    if path.startswith("/v1/"):
        bare = path.removeprefix("/v1")
        spellings |= {bare, f"{bare}/", f"/v1{path}", f"/v1{path}/"}
    for spelling in spellings:
        response = closed.options(spelling)
        assert response.status_code == 204, spelling
        assert route.method in response.headers["allow"].split(", "), spelling
