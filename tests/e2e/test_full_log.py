"""A log that nobody reads holds nobody up."""

import json
import os

import httpx2

from tests.support.command import body, served
from tests.support.live import eventually

_LINES = 12_000  # more than a pipe and the queue before it hold


def dropped(server):
    text = httpx2.get(f"http://127.0.0.1:{server.port}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("penstock_log_lines_dropped")]
    return float(lines[0].rpartition(" ")[2])


def test_a_log_that_nobody_reads_holds_nobody_up():
    """Calls are answered; what had no room is counted, and the log tells of it when it is read."""
    with served("--engine", "ledger") as server, httpx2.Client() as client:
        for _ in range(_LINES):
            assert client.get(f"{server.url}/models/none").status_code == 404
        eventually(lambda: dropped(server) > 0, 5, "lines were dropped")
        asked = body(max_tokens=3)
        assert client.post(f"{server.url}/chat/completions", json=asked).status_code == 200
        told, pipe = b"", server.process.stderr.fileno()
        os.set_blocking(pipe, False)
        while b"log lines were dropped" not in told:
            try:
                told += os.read(pipe, 1 << 20)
            except BlockingIOError:
                client.get(f"{server.url}/models")
        last = next(line for line in told.splitlines() if b"were dropped" in line)
        assert json.loads(last)["lines"] > 0
