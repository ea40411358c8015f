"""Fairness over HTTP: whatever the route, a key with little to ask passes a key that floods."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from gateway.setting_kinds import Secret
from tests.support.live import chat, live, test_settings

FLOOD, LIGHT = "sk-flood", "sk-light"
SAID = {"model": "ledger", "max_tokens": 2}
ROUTES = {
    "chat/completions": chat(max_tokens=2),
    "completions": {**SAID, "prompt": "hi"},
    "messages": {**SAID, "messages": [{"role": "user", "content": "hi"}]},
    "responses": {"model": "ledger", "input": "hi", "max_output_tokens": 2},
    "embeddings": {"model": "ledger", "input": "hi"},
}


@pytest.fixture(scope="module")
def server():
    keys = tuple(map(Secret, (FLOOD, LIGHT)))
    with live(test_settings(api_key=keys, max_running=2), step_s=0.002) as server:
        yield server


def post(server, key, route, body):
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx2.post(f"{server.url}/{route}", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return time.monotonic()


@pytest.mark.parametrize("route", ROUTES)
def test_a_light_key_passes_a_flood(server, route):
    """It is answered while all but the first of those that came before it still wait."""
    flood = chat(max_tokens=150)
    with ThreadPoolExecutor(12) as pool:
        before = [pool.submit(post, server, FLOOD, "chat/completions", flood) for _ in range(10)]
        deadline = time.monotonic() + 10
        while server.load().waiting < 8:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        answered = post(server, LIGHT, route, ROUTES[route])
        ends = sorted(each.result() for each in before)
    assert sum(end < answered for end in ends) <= 2
