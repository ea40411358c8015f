"""What a connection takes besides one request after another: upgrades, pipelines, broken bytes."""

import json
import re

import pytest

from tests.support.live import Raw, chat, eventually, live, test_settings

CHAT = "/v1/chat/completions"
JSON = "content-type: application/json"
UPGRADES = [
    ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAoAAA"),
    ("connection: keep-alive", "connection: upgrade", "upgrade: websocket"),
]


@pytest.fixture(scope="module")
def server():
    with live(test_settings(max_running=4), step_s=0.01) as server:
        yield server


def message(method, path, *headers, body=b""):
    lines = [f"{method} {path} HTTP/1.1", "host: test", JSON, *headers]
    if body and not any(line.startswith("transfer-encoding") for line in headers):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n", body


def body_of(response):
    return json.loads(response.partition(b"\r\n\r\n")[2])


def responses(got):
    return len(re.findall(rb"HTTP/1\.1 \d{3} ", got))


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("apart", [False, True])
def test_a_body_behind_an_upgrade_is_read(server, upgrade, apart):
    """As `curl --http2` sends it: answered in HTTP/1.1, and so is the next request."""
    head, body = message("POST", CHAT, *upgrade, body=json.dumps(chat()).encode())
    with Raw(server.port) as raw:
        for part in (head, body) if apart else (head + body,):
            raw.socket.sendall(part)
        got = raw.read_until(b"system_fingerprint")
        assert got.startswith(b"HTTP/1.1 200"), got
        assert b"connection: close" not in got
        raw.send("GET", "/livez")
        assert raw.read_until(b"alive").count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_a_body_behind_an_upgrade_is_no_request(server, upgrade, chunked, apart):
    """Or one party's body would be another's request, behind a proxy that shares connections."""
    smuggled = b"GET /livez HTTP/1.1\r\nhost: x\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyy\r\n\r\n"
    if chunked:
        upgrade = (*upgrade, "transfer-encoding: chunked")
        smuggled = b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled)
    head, body = message("POST", CHAT, *upgrade, body=smuggled)
    with Raw(server.port) as raw:
        for part in (head, body) if apart else (head + body,):
            raw.socket.sendall(part)
        raw.send("GET", "/v1/models", headers=("connection: close",))
        got, _ = raw.read_to_end()
    assert responses(got) == 2
    assert b"invalid_json" in got
    assert b'"object":"list"' in got
    assert b"alive" not in got


def test_many_upgrades_in_one_segment_are_as_many_requests(server):
    """Answered in order."""
    head, _ = message("GET", "/livez", *UPGRADES[0])
    with Raw(server.port) as raw:
        raw.socket.sendall(head * 5)
        raw.send("GET", "/v1/models", headers=("connection: close",))
        got, _ = raw.read_to_end()
    assert got.count(b"alive") == 5
    assert b'"object":"list"' in got.rpartition(b"alive")[2]


@pytest.mark.parametrize("target", ["example.com:443", "/livez"])
def test_a_tunnel_is_refused(server, target):
    """This is no proxy, and what follows would not be HTTP."""
    head, _ = message("CONNECT", target)
    with Raw(server.port) as raw:
        raw.socket.sendall(head + b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        got, _ = raw.read_to_end()
    assert responses(got) == 1
    assert body_of(got)["error"]["code"] == "malformed_http"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "broken",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /livez HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_broken_bytes_behind_a_running_request_are_not_answered(server, stream, broken):
    """An answer to them would land inside, or pass for, the running one's."""
    with Raw(server.port) as raw:
        raw.send("POST", CHAT, chat(max_tokens=1500, stream=stream))
        eventually(lambda: server.load().running == 1)
        got = raw.read_until(b'{"content":"') if stream else b""
        raw.socket.sendall(broken)
        rest, _ = raw.read_to_end()
    assert responses(got + rest) == stream
    assert b'"error"' not in rest
    assert not rest.endswith(b"0\r\n\r\n")
    eventually(server.quiet)


def test_a_broken_body_is_answered_once(server):
    """It is the running request's own: nothing was answered yet."""
    head, _ = message("POST", CHAT, "transfer-encoding: chunked")
    with Raw(server.port) as raw:
        raw.socket.sendall(head + b"2\r\n{}\r\n")
        raw.socket.sendall(b"zz\r\n")
        got, _ = raw.read_to_end()
    assert responses(got) == 1
    assert body_of(got)["error"]["code"] == "malformed_http"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("size", [60_000, 200_000])
def test_leaving_behind_a_large_pipelined_body_is_noticed(server, stream, size):
    """Below 64 KiB the reading goes on; above that the connection ends without being left."""
    head, body = message("POST", CHAT, "content-length: 1000000"), b"x" * size
    with Raw(server.port) as raw:
        raw.send("POST", CHAT, chat(max_tokens=1900, stream=stream))
        eventually(lambda: server.load().running == 1)
        steps = server.load().steps
        try:
            raw.socket.sendall(head[0] + body)
        except OSError:
            assert size > 65_536, "cut too early"
        if size < 65_536:
            raw.reset()
        eventually(server.quiet, 5, "the running request to be aborted")
        assert server.load().steps - steps < 1000, "it ran to its end"
