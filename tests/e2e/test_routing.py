"""Two workers behind one port: which of them gets a request, seen by what it need not compute."""

import time
from contextlib import contextmanager

import httpx2
import pytest

from tests.e2e.test_workers import all_up, fleet, fronted, metric, worker_at
from tests.support.command import body
from tests.support.live import eventually

LONG = 8000


def chat(server, text, **fields):
    """Prompt tokens of a chat, and how many of them came from a cache."""
    asked = body(messages=[{"role": "user", "content": text}], temperature=0, **fields)
    answer = httpx2.post(f"{server.url}/chat/completions", json=asked, timeout=30)
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def prompt(number):
    """Several blocks, and from its first one on like no other."""
    return f"{number} {number * 7} " * 60


@contextmanager
def busy(server):
    """One worker has something to do."""
    asked = body(stream=True, max_tokens=LONG, messages=[{"role": "user", "content": "Go on"}])
    with httpx2.stream("POST", f"{server.url}/chat/completions", json=asked, timeout=30) as answer:
        lines = answer.iter_lines()
        while '"content":"' not in next(lines):
            pass
        yield
    eventually(lambda: metric(server, "penstock_running_sequences") == 0, 20, "it is idle")


def cached_after_a_detour(server, text):
    """A prompt goes where nobody else is; what is cached of it when all are idle again."""
    with busy(server):
        tokens, cached = chat(server, text)
        assert cached == 0
    return tokens, chat(server, text)[1]


def test_a_prompt_goes_back_to_the_worker_that_has_it():
    """Though another is idle as well, and stands first."""
    with fleet(2) as server:
        tokens, cached = cached_after_a_detour(server, prompt(1))
        assert cached > tokens - 2 * 32
        assert metric(server, "penstock_prefix_route_hits_total") == 1
        assert metric(server, "penstock_prefix_route_matched_tokens_total") >= cached
        for number in range(2, 6):
            further = chat(server, prompt(1) + prompt(number))[1]
            assert further > tokens - 3 * 32, "the same beginning, the same worker"


def test_by_load_alone_it_goes_to_the_first_that_is_idle():
    """Which has never seen it."""
    with fleet(2, "--routing", "least-loaded") as server:
        assert cached_after_a_detour(server, prompt(1))[1] == 0
        assert metric(server, "penstock_prefix_route_hits_total") == 0
        assert metric(server, "penstock_prefix_route_misses_total") == 0


def test_by_turns_each_worker_computes_it_once():
    """Then both have it."""
    with fleet(2, "--routing", "round-robin") as server:
        cached = [chat(server, prompt(1))[1] for _ in range(4)]
        assert cached[:2] == [0, 0]
        assert min(cached[2:]) > 0


def test_sticky_prompts_stay_without_any_event():
    """The second time it is cached, whoever is first; others are spread."""
    with fleet(2, "--routing", "sticky") as server:
        for number in range(4):
            tokens, cached = cached_after_a_detour(server, prompt(number))
            assert cached > tokens - 2 * 32
        assert metric(server, "penstock_prefix_route_hits_total") == 0


@pytest.mark.parametrize("count", [30])
def test_a_new_gateway_learns_what_its_workers_have(tmp_path, count):
    """By a snapshot: a prompt goes where the last gateway had it computed."""
    one, two = f"unix:{tmp_path}/one", f"unix:{tmp_path}/two"
    with worker_at(one), worker_at(two):
        with fronted(one, two) as first:
            eventually(all_up(first, 2), 30, "all workers up")
            with busy(first):
                for number in range(count):
                    assert chat(first, prompt(number))[1] == 0
            assert first.stop() == 0
        with fronted(one, two) as second:
            eventually(all_up(second, 2), 30, "all workers up")
            learned = None
            for number in range(count):
                time.sleep(0.05)  # each try uses up a prompt: the other worker has it then
                if learned is None and metric(second, "penstock_prefix_route_hits_total") == 1:
                    learned = number
                tokens, cached = chat(second, prompt(number))
                assert cached > tokens - 2 * 32 or learned is None
            assert learned is not None
