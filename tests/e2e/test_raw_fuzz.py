"""Hostile bytes on raw sockets: 4xx or a closed connection, and a loop that never stands still."""

import contextlib
import json
import random
import re
import socket
import time
from functools import partial

import psutil
import pytest

from tests.support.live import Raw, eventually, live, test_settings
from tests.support.loop_probe import assert_never_stalls

MIB = 1 << 20
HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BODY = json.dumps({"model": "ledger", "prompt": "hi", "max_tokens": 1}).encode()
SIZE = len(BODY)
LENGTH = b"content-length: %d\r\n" % SIZE
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)
SMUGGLED = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
LIVEZ = SMUGGLED.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
HEAD_S, BODY_S = 1.5, 0.7  # a head of ours must arrive in time on a busy machine as well


@pytest.fixture(scope="module")
def server():
    settings = test_settings(header_timeout_s=HEAD_S, body_timeout_s=BODY_S, max_connections=600)
    with live(settings) as server:
        yield server
        eventually(server.quiet)


def exchanged(server, *parts, after_s=0.0):
    """What comes back for the bytes until the server closes, or has been quiet for a second."""
    got = b""
    with Raw(server.port) as raw:
        raw.socket.settimeout(1 + after_s)
        try:
            for part in parts:
                raw.socket.sendall(part)
            while some := raw.socket.recv(65536):
                got += some
        except TimeoutError:
            return got, False
        except OSError:  # reset: it closed while bytes were on their way
            return got, True
    return got, True


def statuses(got):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]


def error_of(got):
    error = json.loads(got.rpartition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str)
    return error


def refused(server, *parts, code="malformed_http", status=400):
    """One refusal and the end of the connection; whatever was smuggled is not answered."""
    got, closed = exchanged(server, *parts)
    assert closed, got
    if got:
        assert statuses(got) == [status], got
        assert error_of(got)["code"] == code
    return got


SMUGGLING = {
    "both lengths": HEAD + LENGTH + CHUNKED + b"\r\n" + CHUNKS,
    "both, other order": HEAD + CHUNKED + LENGTH + b"\r\n" + CHUNKS,
    "zero length and chunks": HEAD + b"content-length: 0\r\n" + CHUNKED + b"\r\n" + CHUNKS,
    "length twice": HEAD + LENGTH * 2 + b"\r\n" + BODY,
    "two lengths": HEAD + LENGTH + b"content-length: 0\r\n\r\n" + BODY,
    "listed lengths": HEAD + b"content-length: %d, %d\r\n\r\n" % (SIZE, SIZE) + BODY,
    "signed length": HEAD + b"content-length: +%d\r\n\r\n" % SIZE + BODY,
    "negative length": HEAD + b"content-length: -1\r\n\r\n" + BODY,
    "hex length": HEAD + b"content-length: 0x%x\r\n\r\n" % SIZE + BODY,
    "length beyond 64 bit": HEAD + b"content-length: " + b"9" * 23 + b"\r\n\r\n" + BODY,
    "empty length": HEAD + b"content-length: \r\n\r\n" + BODY,
    "space before colon": HEAD + b"content-length : %d\r\n\r\n" % SIZE + BODY,
    "coding, space before colon": HEAD + b"transfer-encoding : chunked\r\n\r\n" + CHUNKS,
    "coding identity": HEAD + b"transfer-encoding: identity\r\n\r\n" + CHUNKS,
    "coding unknown": HEAD + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKS,
    "coding not at the end": HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n" + CHUNKS,
    "coding twice": HEAD + CHUNKED * 2 + b"\r\n" + CHUNKS,
    "coding after a vertical tab": HEAD + b"transfer-encoding:\x0bchunked\r\n\r\n" + CHUNKS,
    "folded line": HEAD + b"x: a\r\n b\r\n" + LENGTH + b"\r\n" + BODY,
    "folded coding": HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    "bare line feeds": (HEAD + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "bare line feed at the end": HEAD + LENGTH + b"\n" + BODY,
    "line feed in a value": HEAD + b"x: a\ny: b\r\n" + LENGTH + b"\r\n" + BODY,
    "return in a value": HEAD + b"x: a\ry: b\r\n" + LENGTH + b"\r\n" + BODY,
    "zero byte in a value": HEAD + b"x: a\0b\r\n" + LENGTH + b"\r\n" + BODY,
    "space in a name": HEAD + b"x y: a\r\n" + LENGTH + b"\r\n" + BODY,
    "no name": HEAD + b": a\r\n" + LENGTH + b"\r\n" + BODY,
    "no colon": HEAD + b"x\r\n" + LENGTH + b"\r\n" + BODY,
    "chunks ended by line feeds": HEAD + CHUNKED + b"\r\n%x\n%b\n0\n\n" % (SIZE, BODY),
    "chunk size 0x": HEAD + CHUNKED + b"\r\n0x%x\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY),
    "chunk size negative": HEAD + CHUNKED + b"\r\n-1\r\n%b\r\n0\r\n\r\n" % BODY,
    "chunk size beyond 64 bit": HEAD + CHUNKED + b"\r\n" + b"f" * 20 + b"\r\n" + BODY,
    "chunk size with a space": HEAD + CHUNKED + b"\r\n%x \r\n%b\r\n0\r\n\r\n" % (SIZE, BODY),
    "chunk size empty": HEAD + CHUNKED + b"\r\n\r\n%b\r\n0\r\n\r\n" % BODY,
    "chunk longer than it says": HEAD + CHUNKED + b"\r\n%x\r\n%bxx\r\n0\r\n\r\n" % (SIZE, BODY),
    "chunk extension with a line feed": HEAD + CHUNKED + b"\r\n%x;a=b\nx\r\n%b" % (SIZE, BODY),
    "length in a trailer": HEAD + CHUNKED + b"\r\n" + CHUNKS[:-2] + LENGTH + b"\r\n",
    "no version": b"GET /livez\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 1.2": b"GET /livez HTTP/1.2\r\nhost: x\r\n\r\n",
    "zero byte in the target": b"GET /liv\0ez HTTP/1.1\r\nhost: x\r\n\r\n",
    "a method nobody knows": b"G" * 5000 + b" /livez HTTP/1.1\r\nhost: x\r\n\r\n",
    "a handshake of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 200,
    "every byte": bytes(range(256)) * 20,
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLING)
def test_ambiguous_requests_are_refused_and_closed(server, name):
    """And nothing that stands behind them is taken for a request."""
    assert_never_stalls(server.loop, lambda: refused(server, SMUGGLING[name] + SMUGGLED))


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"host: x\r\n", b"") + LENGTH,
        HEAD + b"host: y\r\n" + LENGTH,
        HEAD.replace(b"/1.1", b"/2.0") + LENGTH,
        HEAD.replace(b"/1.1", b"/1.0") + CHUNKED,
        HEAD + b"transfer-encoding: gzip, chunked\r\n",
    ],
)
def test_heads_that_the_parser_lets_pass_are_refused(server, head):
    """Their bodies have an end, so the connection may go on."""
    body = CHUNKS if b"transfer" in head else BODY
    got, _ = exchanged(server, head + b"connection: close\r\n\r\n" + body)
    assert statuses(got) == [400]
    assert error_of(got)["code"] == "malformed_http"


def test_slow_heads_are_closed_in_time(server):
    """Two hundred at once, byte by byte; a good client is served meanwhile."""

    def attack():
        raws = [Raw(server.port) for _ in range(200)]
        for raw in raws:
            raw.socket.sendall(HEAD + b"x: ")
        took = trickled(raws, meanwhile=partial(served_at_once, server))
        assert HEAD_S * 0.9 < took < HEAD_S + 3

    assert_never_stalls(server.loop, attack)


@pytest.mark.parametrize(
    "start",
    [
        HEAD + b"content-length: 100000\r\n\r\n",
        HEAD + CHUNKED + b"\r\nffff\r\n",
        HEAD + b"expect: 100-continue\r\ncontent-length: 100000\r\n\r\n",
    ],
)
def test_slow_bodies_are_refused_in_time(server, start):
    """408 and closed, however steadily they trickle; a length that lies is the same."""

    def attack():
        raws = [begun(server, start) for _ in range(100)]
        answers = []
        took = trickled(raws, answers, meanwhile=partial(served_at_once, server))
        assert BODY_S * 0.9 < took < BODY_S + 3
        assert len(answers) == 100
        for answer in answers:
            assert statuses(answer)[-1] == 408
            assert error_of(answer)["code"] == "request_timeout"

    assert_never_stalls(server.loop, attack)


def begun(server, start):
    raw = Raw(server.port)
    raw.socket.sendall(start)
    return raw


def served_at_once(server):
    """Others are. A second try, since a starved machine may miss the short deadline of a head."""
    assert any(statuses(exchanged(server, LIVEZ)[0]) == [200] for _ in range(3))


def trickled(raws, answers=None, *, meanwhile):
    """Send each a byte at a time until it is closed; how long the last one lasted."""
    began, open_ = time.monotonic(), dict.fromkeys(raws, b"")
    while open_:
        assert time.monotonic() - began < 10, f"{len(open_)} are still open"
        meanwhile()
        for raw in list(open_):
            raw.socket.settimeout(0)
            try:
                some = raw.socket.recv(65536)
            except BlockingIOError:
                with contextlib.suppress(OSError):
                    raw.socket.send(b"1")
                continue
            except ConnectionResetError:
                some = b""
            open_[raw] += some
            if not some:
                raw.socket.close()
                answer = open_.pop(raw)
                if answers is not None:
                    answers.append(answer)
    return time.monotonic() - began


LARGE = {
    "one line": (b"GET /livez HTTP/1.1\r\nhost: x\r\nx: ", b"a" * MIB),
    "many lines": (b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"x: y\r\n" * (MIB // 6)),
    "a name": (b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"a" * MIB),
    "the target": (b"GET /", b"a" * MIB),
    "one trailer": (HEAD + CHUNKED + b"\r\n1\r\n{\r\n0\r\nx: ", b"a" * MIB),
    "many trailers": (HEAD + CHUNKED + b"\r\n1\r\n{\r\n0\r\n", b"x: y\r\n" * (MIB // 6)),
    "a chunk's extension": (HEAD + CHUNKED + b"\r\n1;a=", b"a" * MIB),
    "blank lines": (b"", b"\r\n" * (MIB // 2)),
}


@pytest.mark.parametrize("name", LARGE)
def test_sixty_four_mebibytes_beside_a_body_are_refused(server, name):
    """431 or a closed connection long before their end, and nothing is kept."""
    start, part = LARGE[name]
    process = psutil.Process()
    before = process.memory_info().rss

    def attack():
        refused(server, start, *[part] * 64, code="headers_too_large", status=431)

    assert_never_stalls(server.loop, attack)
    assert process.memory_info().rss - before < 20 * MIB


HEAVY = {
    "brackets": b"[" * 2 * MIB,
    "objects": b'{"a":' * (2 * MIB // 5),
    "many arrays": b"[" + b"[]," * (2 * MIB // 3 - 2) + b"[]]",
    "as many arrays as may be": b'{"x":[' + b"[]," * 49_000 + b"[]]}",
    "numbers": b'{"x":[' + b"1," * (MIB - 10) + b"1]}",
    "long numbers": b'{"x":[' + b"1e300," * (MIB // 6) + b"1]}",
    "keys": b"{" + b",".join(b'"%d":1' % key for key in range(150_000)) + b"}",
    "escapes": b'{"x":"' + b"\\u0061" * (2 * MIB // 6 - 10) + b'"}',
    "backslashes": b'{"x":"' + b"\\\\" * (MIB - 10) + b'"}',
    "quotes": b'{"x":' + b'"' * (2 * MIB - 10) + b"}",
    "broken UTF-8": b'{"x":"' + b"\xc3" * (2 * MIB - 20) + b'"}',
}


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_bodies_are_refused_beside_the_loop(server, name):
    """Two mebibytes of whatever costs a parser most."""
    body = HEAVY[name]
    assert len(body) <= 2 * MIB
    head = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)

    def attack():
        got, closed = exchanged(server, head + body, after_s=10)
        assert closed
        assert statuses(got) == [400], got[:300]
        error_of(got)

    assert_never_stalls(server.loop, attack)


@pytest.mark.parametrize("path", [b"completions", b"nope"])
def test_a_body_in_crumbs_does_not_hold_up_the_loop(server, path):
    """One byte per chunk, read or thrown away."""
    crumbs = b"1\r\nx\r\n" * (2 * MIB) + b"0\r\n\r\n"
    head = HEAD.replace(b"completions", path) + b"connection: close\r\n" + CHUNKED + b"\r\n"

    def attack():
        got, _ = exchanged(server, head, crumbs, after_s=10)
        # 408 where the machine was too busy to read two million chunks in time.
        assert set(statuses(got)) <= ({400, 408} if path == b"completions" else {404})

    assert_never_stalls(server.loop, attack)


def test_lies_about_the_length_reach_nobody(server):
    """Too long: the rest is waited for in vain. Too short: the rest is no request."""
    longer = HEAD + b"content-length: %d\r\n\r\n" % (SIZE + 5) + BODY
    refused(server, longer, code="request_timeout", status=408)
    shorter = HEAD + b"content-length: %d\r\n\r\n" % (SIZE - 5) + BODY
    got, closed = exchanged(server, shorter)
    assert closed
    assert statuses(got) in ([400], [])
    got, closed = exchanged(server, HEAD + LENGTH + b"\r\n" + BODY + BODY)
    assert closed
    assert statuses(got) in ([200, 400], [200], [])


def test_requests_in_one_segment_are_answered_in_order_or_cut(server):
    """Ten are; twenty thousand are more than may wait."""
    got, closed = exchanged(server, LIVEZ.replace(b"connection: close\r\n", b"") * 9 + LIVEZ)
    assert (statuses(got), closed) == ([200] * 10, True)

    def attack():
        got, closed = exchanged(server, SMUGGLED * 20_000)
        assert closed
        assert set(statuses(got)) <= {200}

    assert_never_stalls(server.loop, attack)


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes_are_refused_or_cut(server, seed):
    """Garbage, and requests with bytes changed, lost, doubled or cut off."""
    rng = random.Random(seed)

    def attack():
        for _ in range(25):
            sent = rng.randbytes(rng.randrange(1, 4000)) if rng.random() < 0.2 else mutated(rng)
            with Raw(server.port) as raw, contextlib.suppress(OSError):
                raw.socket.sendall(sent)
                raw.socket.shutdown(socket.SHUT_WR)
                got, _ = raw.read_to_end()
                assert all(status < 500 for status in statuses(got)), (sent, got)
                assert not got or got.startswith(b"HTTP/1.1 "), (sent, got)
                if got and statuses(got)[-1] >= 400:
                    error_of(got)

    assert_never_stalls(server.loop, attack)


def mutated(rng):
    good = [HEAD + LENGTH + b"\r\n" + BODY, HEAD + CHUNKED + b"\r\n" + CHUNKS, LIVEZ]
    sent = rng.choice(good)
    for _ in range(rng.randrange(1, 6)):
        at, size = rng.randrange(len(sent) + 1), rng.randrange(9)
        match rng.randrange(4):
            case 0:
                sent = sent[:at] + rng.randbytes(1) + sent[at + 1 :]
            case 1:
                sent = sent[:at] + sent[at + size :]
            case 2:
                sent = sent[: at + size] + sent[at:]
            case 3:
                sent = sent[: at + len(sent) // 2]
    return sent


def test_the_probe_sees_a_loop_that_stands_still(server):
    """So the claims above can fail."""

    def hold_up():
        server.loop.call_soon_threadsafe(time.sleep, 0.2)
        time.sleep(0.3)

    with pytest.raises(AssertionError, match="in each of 4 tries"):
        assert_never_stalls(server.loop, hold_up)
