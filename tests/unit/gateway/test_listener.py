"""The listening socket: what cannot be listened on is told in one sentence."""

import socket

import pytest

from gateway.listener import CannotListen, listen, url_of


@pytest.mark.parametrize("host", ["a" * 80, "a..b", "a\0b", "\u2764" * 70, "no such name"])
def test_an_impossible_host_is_refused_with_its_name(host):
    """Also what no resolver is even asked about."""
    with pytest.raises(CannotListen, match="cannot listen on"):
        listen(host, 0)


def test_a_taken_port_is_refused():
    """With the system's own words."""
    with (
        socket.create_server(("127.0.0.1", 0)) as holder,
        pytest.raises(CannotListen, match="in use"),
    ):
        listen("127.0.0.1", holder.getsockname()[1])


def test_a_free_port_is_found_and_told():
    """Port 0 is any."""
    with listen("127.0.0.1", 0) as listener:
        assert url_of(listener, "127.0.0.1") == f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
