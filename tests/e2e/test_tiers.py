"""A worker that is killed while it writes KV blocks: the next one finds them, and says the same."""

import random
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from tests.support.command import MODEL, served
from tests.support.live import eventually

ENGINES = {
    "ledger": ("--kv-cache-memory=8KiB", "--kv-host-memory=4KiB", "--max-context=1024"),
    "torch": ("--kv-cache-memory=8MiB", "--kv-host-memory=4MiB", "--max-context=1024"),
}


def worker_of(server):
    for child in psutil.Process(server.process.pid).children():
        try:
            if "worker" in child.cmdline():
                return child
        except psutil.Error:
            continue
    return None


def prompt(number):
    """Words that no other number has, some 300 tokens of them."""
    rng = random.Random(number)
    return " ".join(rng.choice(["river", "stone", "lamp", "green", "seven"]) for _ in range(300))


def post(server, number):
    asked = {"model": MODEL, "prompt": prompt(number), "max_tokens": 6, "temperature": 0}
    return httpx2.post(f"{server.url}/completions", json=asked, timeout=60)


def complete(server, number):
    """The text of an answer, and how many tokens of its prompt were not computed."""
    answer = post(server, number)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return told["choices"][0]["text"], told["usage"]["prompt_tokens_details"]["cached_tokens"]


def kill_in_traffic(server, numbers):
    """Kill the worker while it answers; what comes until the next is up is refused."""
    before = worker_of(server)
    asked = threading.Event()

    def ask(number):
        if number == numbers[len(numbers) // 2]:
            asked.set()
        return post(server, number).status_code

    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(ask, numbers)
        asked.wait(30)
        before.kill()
        assert set(answers) <= {200, 503}
    ready = f"http://127.0.0.1:{server.port}/readyz"
    eventually(lambda: httpx2.get(ready).status_code == 200, within_s=30)
    assert worker_of(server).pid != before.pid


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "kills"), [("ledger", 3), ("torch", 1)])
def test_a_killed_worker_leaves_what_it_wrote(tmp_path, engine, kills):
    """The text stays the same, and what was on the disk is not computed again."""
    folder = tmp_path / "kv"
    flags = (f"--engine={engine}", *ENGINES[engine], f"--kv-disk-dir={folder}", "--max-running=4")
    with served(*flags) as server:
        first = [complete(server, number)[0] for number in range(4)]
        for life in range(kills):
            kill_in_traffic(server, range(100 * (life + 1), 100 * (life + 1) + 12))
            again = [complete(server, number) for number in range(4)]
            assert [text for text, _ in again] == first
            assert sum(cached for _, cached in again) > 0
        folders = [*folder.glob("*/*")]
        assert len(folders) == 1, "each life takes the folder of the one before"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert server.stop() == 0
    assert not [*folder.rglob("*.tmp")]
    assert (folders[0] / "manifest").exists()


def test_a_gateway_tells_what_its_workers_keep(tmp_path):
    """In /metrics, by tier: what was evicted, put on the disk, found there and brought back."""
    flags = ("--engine=ledger", *ENGINES["ledger"], f"--kv-disk-dir={tmp_path / 'kv'}")
    with served(*flags) as server:
        for number in range(8):
            complete(server, number)
        assert complete(server, 0)[1] > 0

        def told(name):
            text = httpx2.get(f"http://127.0.0.1:{server.port}/metrics").text
            lines = [
                line for line in text.splitlines() if line.startswith(f"penstock_kv_tier_{name}{{")
            ]
            return {line.split('"')[1]: float(line.split()[-1]) for line in lines}

        eventually(lambda: told("restored_blocks_total")["host"] > 0, within_s=10)
        for name in ("blocks", "bytes", "stored_blocks_total", "evicted_blocks_total"):
            assert min((told(name)[tier] for tier in ("device", "host")), default=0) > 0
        assert told("stored_blocks_total")["disk"] > 0
        assert told("hit_blocks_total")["disk"] >= told("restored_blocks_total")["disk"] > 0
        assert set(told("failed_blocks_total").values()) == {0.0}
        assert set(told("dropped_blocks_total")) == {"device", "host", "disk"}


@pytest.mark.slow
def test_a_restarted_server_is_warm(tmp_path):
    """After a graceful end even what had never left the cache is there."""
    flags = ("--engine=ledger", "--kv-host-memory=1MiB", f"--kv-disk-dir={tmp_path / 'kv'}")
    with served(*flags) as server:
        text, cached = complete(server, 1)
        assert cached == 0
        assert server.stop() == 0
    with served(*flags) as server:
        assert complete(server, 1)[0] == text
        assert complete(server, 1)[1] > 0
    with served(*flags) as server:
        again, cached = complete(server, 1)
        assert (again, cached > 256) == (text, True)
