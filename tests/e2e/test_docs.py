"""/openapi.json is true and /docs loads from here alone: each claim run against a server."""

import itertools
import json
import re
from urllib.parse import urlsplit

import httpx2
import jsonschema_rs
import pytest

from gateway.setting_kinds import Secret
from openai_compat.anthropic import schema as messages
from openai_compat.chat import schema as chat
from openai_compat.completions import schema as completions
from openai_compat.openapi.document import document
from openai_compat.responses import schema as responses
from tests.support.command import served
from tests.support.live import Raw, live, test_settings
from tests.support.routes import api_routes

DOCUMENT = document("0")
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    (method.upper(), path): operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
REQUESTS = {
    "ChatCompletionRequest": chat.KNOWN,
    "CompletionRequest": completions.KNOWN,
    "ResponseRequest": responses.KNOWN,
    "MessageRequest": messages.KNOWN,
    "MessageCountRequest": messages.KNOWN_TO_COUNT,
}
HIDDEN = "/docs"
LAST_OF_MESSAGES = 'event: message_stop\ndata: {"type":"message_stop"}'


@pytest.fixture(scope="module")
def http():
    """The bundled model, which the examples name."""
    with (
        served() as server,
        httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def page():
    """With keys: the documentation needs none."""
    with (
        live(test_settings(api_key=(Secret("sk-key"),))) as server,
        httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client,
    ):
        yield client


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/v1/models", "/docs/start.js"])
def test_what_can_be_read_can_be_asked_for_its_head(http, path):
    """The same status and headers, and no body."""
    told, read = http.head(path), http.get(path)
    assert told.status_code == read.status_code == 200
    assert told.content == b""
    for name in ("content-type", "content-length"):
        assert told.headers[name] == read.headers[name]


def body_examples():
    return [*_body_examples()]


def _body_examples():
    for (_, path), operation in OPERATIONS.items():
        if "requestBody" in operation:
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            for name, example in examples.items():
                yield pytest.param(path, operation, example, id=f"{path} {name}")


def validator(schema):
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def content(operation, status, kind):
    response = operation["responses"][str(status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    return response["content"][kind]


def test_the_document_is_openapi():
    """3.1, and every schema in it is one."""
    assert DOCUMENT["openapi"] == "3.1.0"
    for name, schema in SCHEMAS.items():
        jsonschema_rs.meta.validate(schema)
        validator({"$ref": f"#/components/schemas/{name}"})
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)


def test_every_route_is_described_and_nothing_else():
    """With a summary, and what it takes and gives shown."""
    routes = {
        (route.method, route.path.replace(":path}", "}"))
        for route in api_routes()
        if not route.path.startswith(HIDDEN)
    }
    assert routes == set(OPERATIONS)


@pytest.mark.parametrize("name", REQUESTS)
def test_every_known_field_is_described_and_no_other(name):
    """The sets are the readers' own."""
    assert set(SCHEMAS[name]["properties"]) == REQUESTS[name]


@pytest.mark.parametrize("route", OPERATIONS, ids=" ".join)
def test_every_operation_shows_what_it_gives(route):
    """An example of each kind of answer, as its own schema says."""
    operation = OPERATIONS[route]
    assert operation["summary"]
    shown = operation["responses"]["200"]["content"]
    assert shown
    for kind, media in shown.items():
        if kind == "text/event-stream":
            for event in media["example"].split("\n\n")[:-1]:
                data = event.rpartition("data: ")[2]
                if data != "[DONE]":
                    validator(media["x-event-data"]).validate(json.loads(data))
        else:
            validator(media["schema"]).validate(media["example"])
    if "requestBody" in operation:
        statuses = {e.values[2]["x-status"] for e in body_examples() if e.values[1] is operation}
        assert {200, 400} <= statuses


@pytest.mark.parametrize(("path", "operation", "example"), body_examples())
def test_every_example_gives_what_it_promises(http, path, operation, example):
    """Sent as it stands to `penstock serve`."""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if example["x-status"] == 200:
        validator(schema).validate(example["value"])
    response = http.post(path, json=example["value"])
    assert response.status_code == example["x-status"], response.text
    kind = response.headers["content-type"].partition(";")[0]
    media = content(operation, response.status_code, kind)
    if kind == "application/json":
        validator(media["schema"]).validate(response.json())
        return
    chunk = validator(media["x-event-data"])
    *events, last, _ = response.text.split("\n\n")
    if path == "/v1/responses":
        assert last.startswith("event: response.incomplete\n")
        events.append(last)
    else:
        assert last in ("data: [DONE]", LAST_OF_MESSAGES)
    assert len(events) > 2
    for event in events:
        chunk.validate(json.loads(event.rpartition("\n")[2].removeprefix("data: ")))


@pytest.mark.parametrize("path", [path for method, path in OPERATIONS if method == "GET"])
def test_every_reading_gives_what_it_promises(http, path):
    """With the examples of its parameters in place."""
    operation = OPERATIONS["GET", path]
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "path":
            continue
        path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
    if "{response_id}" in path or "resp_" in path:
        made = http.post("/v1/responses", json={"model": "penstock-tiny", "input": "Hi!"})
        path = re.sub(r"(resp_\w+|\{response_id\})", made.json()["id"], path)
    if path.endswith("/stream"):
        route, _, _ = path.rsplit("/", 2)
        asked = {"model": "penstock-tiny", "prompt": "Hi!", "max_tokens": 4, "stream": True}
        if "chat" in route:
            asked["messages"] = [{"role": "user", "content": asked.pop("prompt")}]
        made = http.post(route, json=asked, headers={"x-stream-durability": "replicated"})
        path = f"{route}/{made.headers['x-stream-id']}/stream"
    with http.stream("GET", path) as response:
        assert response.status_code == 200
        kind = response.headers["content-type"].partition(";")[0]
        media = operation["responses"]["200"]["content"][kind]
        if operation.get("x-endless"):
            _, data = itertools.islice(response.iter_lines(), 2)
            validator(media["x-event-data"]).validate(json.loads(data.removeprefix("data: ")))
            return
        response.read()
    if kind == "text/event-stream":
        *events, last, _ = response.text.split("\n\n")
        assert last == "data: [DONE]"
        for event in events:
            data = event.split("\n")[0].removeprefix("data: ")
            validator(media["x-event-data"]).validate(json.loads(data))
        return
    given = response.json() if kind == "application/json" else response.text
    validator(media["schema"]).validate(given)


def test_the_served_document_is_this_one(page):
    """Without a key, and without a word about this server."""
    given = page.get("/openapi.json")
    assert given.status_code == 200
    assert given.json() == document(given.json()["info"]["version"])


def test_the_page_loads_from_this_server_alone(page):
    """Each reference is a path that is served; the policy holds the browser to it."""
    response = page.get("/docs")
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    for rule in policy.split("; "):
        assert set(rule.split()[1:]) <= {"'self'", "'none'", "data:"}
    references = re.findall(r"(?:src|href)=\"([^\"]*)\"", response.text)
    assert len(references) == 4
    for reference in references:
        if reference != "data:,":
            assert re.fullmatch(r"/[a-z./-]+", reference)
            asset = page.get(reference)
            assert asset.status_code == 200
            assert asset.headers["content-security-policy"] == policy
            assert asset.headers["x-content-type-options"] == "nosniff"
    for address in re.findall(r"url\(([^)]*)\)", page.get("/docs/swagger-ui.css").text):
        assert address.strip("'\"").startswith("data:")
    start = page.get("/docs/start.js").text
    assert not urlsplit(re.search(r'url: "([^"]*)"', start)[1]).netloc
    assert "validatorUrl: null" in start  # its default asks a server elsewhere
    assert "//" not in start


def test_no_inline_script_or_style_is_needed(page):
    """The policy would forbid it."""
    html = page.get("/docs").text
    assert not re.search(r"<script>|<style|style=|\son[a-z]+=", html)


@pytest.mark.parametrize("path", ["/docs/", "/docs/nope.js", "/docs/%2e%2e/gateway/app.py"])
def test_nothing_else_lies_below_the_page(page, path):
    """Three names, and no folder."""
    with Raw(page.base_url.port) as raw:
        raw.send("GET", path, headers=("connection: close",))
        status = int(raw.read_to_end()[0].split(b" ")[1])
    assert status == (200 if path == "/docs/" else 404)
