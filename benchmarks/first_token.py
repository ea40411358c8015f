"""From `penstock serve` to the first streamed token, with the network cut.

    python -m benchmarks.first_token

The server and its client run in a network namespace that has nothing but loopback, so any attempt
to reach a hub, a registry or a name server would fail. Needs the right to make a namespace.
"""

import asyncio
import fcntl
import socket
import statistics
import struct
import subprocess
import sys
import time

from benchmarks.client import stream
from benchmarks.serving import bodies, served

REPEATS = 3
_SIOCSIFFLAGS = 0x8914
_UP_AND_RUNNING = 0x1 | 0x40


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sh14x", b"lo", _UP_AND_RUNNING)
        fcntl.ioctl(probe, _SIOCSIFFLAGS, request)


def _outside_is_gone() -> bool:
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1).close()
    except OSError:
        return True
    return False


def inside() -> None:
    """Measure, in a namespace of one's own."""
    _loopback_up()
    times = []
    for repeat in range(REPEATS):
        begun = time.perf_counter()
        with served() as server:
            sent = time.perf_counter()
            first = asyncio.run(stream(server.base_url, bodies(1, repeat)[0])).first
        times.append(sent + first - begun)
    print(f"network cut: {_outside_is_gone()}")
    print(f"start_to_first_token_s  {statistics.median(times):6.2f}  of {sorted(times)}")


def main() -> None:
    if "--inside" in sys.argv:
        inside()
        return
    command = ["unshare", "--net", sys.executable, "-m", "benchmarks.first_token", "--inside"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
