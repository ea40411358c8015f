"""Readers of whole answers: one that takes nothing is cut, one that is slow gets all of it."""

import time

import pytest

from tests.support.live import Raw, eventually, live, test_settings

STALL_S = 0.4
TEXT = "lorem ipsum " * 40_000


@pytest.fixture(scope="module")
def server():
    with live(test_settings(write_stall_s=STALL_S, header_timeout_s=0.3)) as server:
        yield server


def connections(server):
    return len(server.process.server.server_state.connections)


def asked(raw):
    raw.send("POST", "/v1/tokenize", {"model": "ledger", "prompt": TEXT})
    return raw.read(1)


def test_a_reader_that_takes_nothing_is_cut(server):
    """Its answer, of megabytes, is not kept for it."""
    with Raw(server.port, receive_buffer=4096) as raw:
        assert asked(raw).startswith(b"HTTP/1.1 200")
        assert connections(server) == 1
        eventually(lambda: connections(server) == 0, STALL_S * 2 + 3, "the connection's end")


def test_a_slow_reader_gets_all_of_it(server):
    """For longer than a stall, as long as it takes something."""
    with Raw(server.port, receive_buffer=4096) as raw:
        got, began = asked(raw), time.monotonic()
        length = int(got.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while time.monotonic() - began < STALL_S * 4:
            got += raw.socket.recv(2048)
            time.sleep(0.01)
        body = got.partition(b"\r\n\r\n")[2]
        body += raw.read(length - len(body))
        assert len(body) == length
        raw.send("GET", "/livez")  # and the connection goes on
        assert raw.read_until(b"alive").startswith(b"HTTP/1.1 200")
