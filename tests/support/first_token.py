"""Prints the seconds from `penstock serve` to the first streamed token, where there is no network.

unshare --net python -m tests.support.first_token
"""

import fcntl
import socket
import struct
import time

from tests.support.command import body, served
from tests.support.live import Raw

_SIOCSIFFLAGS = 0x8914
_UP_AND_RUNNING = 0x1 | 0x40


def main():
    """Bring loopback up in this namespace, and measure."""
    names = [name for _, name in socket.if_nameindex()]
    assert names == ["lo"], f"there is a network here: {names}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
    began = time.monotonic()
    with served() as server, Raw(server.port) as raw:
        raw.send("POST", "/v1/chat/completions", body(stream=True))
        raw.read_until(b'{"content":"')
        took_s = time.monotonic() - began
        assert server.stop() == 0
    print(took_s)  # noqa: T201


if __name__ == "__main__":
    main()
