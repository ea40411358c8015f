"""A worker whose engine dies or hangs ends at once, and says why; its gateway goes on elsewhere."""

import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx2
import pytest

from tests.support.command import ROOT, clean_environment, served
from tests.support.live import TOKENIZER_DIR, Raw, chat, eventually

TOKEN = "0123456789abcdef-of-a-test"


@contextmanager
def breakable(address):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.breakable_worker", address],
        cwd=ROOT, env=clean_environment(PENSTOCK_WORKER_TOKEN=TOKEN),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not process.stdout.readline().startswith("Worker at "):
            assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize(
    ("sign", "said"),
    [(signal.SIGUSR1, "the engine died"), (signal.SIGUSR2, "most recent call first")],
    ids=["dies", "hangs"],
)
def test_a_broken_engine_ends_its_worker_and_no_stream(tmp_path, sign, said):
    """Exit code 70, the reason or the stacks on stderr, the prompt in neither; the rest goes on."""
    one, two = f"unix:{tmp_path}/one", f"unix:{tmp_path}/two"
    flags = ("--worker", one, "--worker", two, "--served-model-name", "ledger")
    with (
        breakable(one) as first,
        served(
            str(TOKENIZER_DIR), *flags, command="gateway", PENSTOCK_WORKER_TOKEN=TOKEN
        ) as server,
        Raw(server.port) as raw,
    ):
        asked = chat("a secret prompt", max_tokens=1000, stream=True)
        raw.send("POST", "/v1/chat/completions", asked)
        raw.read_until(b'{"content":"')
        first.send_signal(sign)
        assert first.wait(20) == 70
        with breakable(two):
            errors = first.stderr.read()
            assert said in errors
            assert "secret" not in errors
            assert b"[DONE]" in raw.read_until(b"[DONE]")
            metrics = f"http://127.0.0.1:{server.port}/metrics"
            assert "penstock_migrations_total 1.0" in httpx2.get(metrics).text


def test_a_worker_that_is_told_twice_leaves_at_once(tmp_path):
    """The second signal does not wait for what runs."""
    address = f"unix:{tmp_path}/one"
    flags = ("--worker", address, "--served-model-name", "ledger")
    with (
        breakable(address) as worker,
        served(
            str(TOKENIZER_DIR), *flags, command="gateway", PENSTOCK_WORKER_TOKEN=TOKEN
        ) as server,
        Raw(server.port) as raw,
    ):
        raw.send("POST", "/v1/chat/completions", chat(max_tokens=2000, stream=True))
        raw.read_until(b'{"content":"')
        worker.send_signal(signal.SIGTERM)
        eventually(
            lambda: httpx2.post(f"{server.url}/chat/completions", json=chat()).status_code == 503
        )
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(5) == 0
