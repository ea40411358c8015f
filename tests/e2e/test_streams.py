"""Token streams on real sockets: headers, ends, failures, slow readers, keep-alives."""

import json
import threading
import time
from itertools import pairwise

import httpx2
import openai
import pytest

from tests.support.live import MODEL, Raw, chat, eventually, live, test_settings


def client(server, **options):
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, **options)


def ask(server, **fields):
    with client(server) as sdk:
        yield from sdk.chat.completions.create(**chat(stream=True, **fields))


def answer(server, **fields):
    with client(server) as sdk:
        return sdk.chat.completions.create(**chat(**fields)).choices[0].message.content


@pytest.fixture(scope="module")
def server():
    with live(step_s=0.002) as server:
        yield server


def test_stream_headers_suit_proxies(server):
    """Unbuffered, uncached, and the connection stays for the next call."""
    with Raw(server.port) as raw:
        raw.send("POST", "/v1/chat/completions", chat(stream=True))
        got = raw.read_until(b"0\r\n\r\n")
        head = got.partition(b"\r\n\r\n")[0].lower()
        assert b"content-type: text/event-stream" in head
        assert b"cache-control: no-cache" in head
        assert b"x-accel-buffering: no" in head
        assert b"connection: close" not in head
        raw.send("GET", "/livez")
        assert b"alive" in raw.read_until(b"alive")


def test_tokens_arrive_as_they_are_made(server):
    """Not in one piece at the end."""
    times = [time.monotonic() for _ in ask(server, max_tokens=100)]
    assert times[-1] - times[0] > 0.1
    assert max(late - early for early, late in pairwise(times)) < 0.5 * (times[-1] - times[0])


def test_stream_and_answer_say_the_same(server):
    """They are one fold of the same tokens."""
    parts = [c.choices[0].delta.content or "" for c in ask(server, max_tokens=40)]
    assert "".join(parts) == answer(server, max_tokens=40)


@pytest.mark.parametrize("n", [1, 3])
def test_an_engine_failure_mid_stream_raises_in_the_stock_client(n):
    """Error event, then a cut connection: never a clean end, never the failure's words."""
    with live(step_s=0.005) as server:
        chunks = ask(server, max_tokens=500, n=n)
        for _ in range(20):
            next(chunks)
        server.runner.broken.set()
        with pytest.raises(openai.APIError) as failure:
            list(chunks)
        assert failure.value.code == "engine_died"
        assert "bus" not in str(failure.value)
        server.thread.join(20)
        assert server.exit_code == 70, "a process with a broken device ends"


def test_a_failed_stream_is_cut_inside_its_body():
    """The error event is the last thing, and no terminating chunk follows it."""
    with live(step_s=0.005) as server, Raw(server.port) as raw:
        raw.send("POST", "/v1/chat/completions", chat(stream=True, max_tokens=500))
        got = raw.read_until(b'{"content":"')
        server.runner.broken.set()
        rest, _ = raw.read_to_end()
        got += rest
    assert b"[DONE]" not in got
    assert not got.endswith(b"0\r\n\r\n")
    last = got.rstrip().rpartition(b"data: ")[2]
    error = json.loads(last)["error"]
    assert set(error) == {"message", "type", "param", "code"}


def test_an_engine_failure_before_an_answer_is_500():
    """A call that does not stream has no first byte yet: a real status."""
    with live(step_s=0.005) as server:
        server.runner.broken.set()
        response = httpx2.post(f"{server.url}/chat/completions", json=chat(max_tokens=100))
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "engine_died"
        assert response.headers["x-should-retry"] == "true"


def test_an_idle_stream_gets_comments():
    """So that proxies keep it open, and stock clients read on."""
    with live(test_settings(sse_keepalive_s=0.1)) as server:
        server.runner.may_step.clear()
        threading.Timer(0.5, server.runner.may_step.set).start()
        with Raw(server.port) as raw:
            raw.send("POST", "/v1/chat/completions", chat(stream=True))
            got = raw.read_until(b"[DONE]")
        assert 2 <= got.count(b": keep-alive\n") <= 6
        assert b": keep-alive\n\n" not in got  # which SDKs would take for an event
        server.runner.may_step.clear()
        threading.Timer(0.3, server.runner.may_step.set).start()
        assert [chunk.choices[0].finish_reason for chunk in ask(server)][-1] == "length"


def test_a_busy_stream_gets_no_comments(server):
    """They are for silence only."""
    with Raw(server.port) as raw:
        raw.send("POST", "/v1/chat/completions", chat(stream=True, max_tokens=50))
        assert b": keep-alive" not in raw.read_until(b"[DONE]")


def stalled(server, count):
    """Readers that ask for much and take nothing."""
    readers = [Raw(server.port, receive_buffer=1024) for _ in range(count)]
    for reader in readers:
        reader.send(
            "POST", "/v1/chat/completions", chat(stream=True, max_tokens=1500, n=4, logprobs=False)
        )
    return readers


def test_slow_readers_do_not_slow_others():
    """The engine never waits for a socket; a fast stream beside ten stuck ones is as fast."""
    settings = test_settings(max_running=64, max_step_tokens=512)
    with live(settings, step_s=0.001, blocks=20_000) as server:

        def seconds():
            began = time.monotonic()
            assert list(ask(server, max_tokens=100))[-1].choices[0].finish_reason == "length"
            return time.monotonic() - began

        readers = stalled(server, 10)
        eventually(lambda: server.load().running == 40)
        eventually(lambda: server.load().running == 0, 60, "all tokens computed unread")
        alone = min(seconds() for _ in range(3))
        held = server.serving.dispatcher.admission.sequences
        assert held > 0, "the stuck ones are still there"
        beside = min(seconds() for _ in range(3))
        assert beside < 3 * alone + 0.2
        for reader in readers:
            reader.reset()
        eventually(server.quiet)


def test_a_slow_reader_gets_every_token_in_the_end():
    """What merged while it slept is all there."""
    with live(blocks=2000) as server:
        body = chat(stream=True, max_tokens=1500)
        with Raw(server.port, receive_buffer=1024) as raw:
            raw.send("POST", "/v1/chat/completions", body)
            eventually(lambda: server.load().steps > 1500)
            got = raw.read_until(b"[DONE]").decode()
        assert "".join(contents(got)) == answer(server, max_tokens=1500)


def contents(raw):
    """The delta texts in a raw chunked response."""
    body = raw.partition("\r\n\r\n")[2].encode()
    plain = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0 or len(body) < int(size, 16):
            plain += body
            break
        plain, body = plain + body[: int(size, 16)], body[int(size, 16) + 2 :]
    for event in plain.decode().split("\n\n"):
        if event.startswith("data: {"):
            yield json.loads(event[6:])["choices"][0]["delta"].get("content", "")


def test_a_reader_that_takes_nothing_is_cut():
    """After the limit its place is free, and the log says why."""
    with live(test_settings(write_stall_s=0.4), step_s=0.001, blocks=4000) as server:
        readers = stalled(server, 2)
        eventually(lambda: server.load().running > 0)
        eventually(server.quiet, 30, "the stuck readers to be cut")
        text = httpx2.get(f"http://127.0.0.1:{server.port}/metrics").text
        assert 'penstock_aborts_total{cause="stalled"} 2.0' in text
        for reader in readers:
            reader.socket.close()


def test_a_pipelined_request_is_answered_after_the_stream(server):
    """In order, on one connection."""
    with Raw(server.port) as raw:
        raw.send("POST", "/v1/chat/completions", chat(stream=True))
        raw.send("GET", "/livez")
        got = raw.read_until(b"alive")
        assert got.index(b"[DONE]") < got.index(b"alive")
        assert MODEL.encode() in got
