"""Responses in the background that outlive their gateway, their worker, and both."""

import asyncio
import json
import signal
import threading
import time
from contextlib import ExitStack, contextmanager

import httpx2
import pytest

from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.e2e.test_workers import all_up, fronted, worker_at
from tests.support.live import eventually
from tests.support.redis_server import needs_redis, redis_server

pytestmark = needs_redis


@contextmanager
def service(folder, *, gateways=2, workers=2, **redis):
    """Gateways over workers, with a Redis; yields gateways, workers and Redis."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder / "redis", **redis))
        asyncio.run(set_up(Secret(redis.deploy_url)))
        addresses = [f"unix:{folder}/{number}" for number in range(workers)]
        computing = [stack.enter_context(worker_at(address)) for address in addresses]
        flags = ("--redis", redis.url)
        fronts = [stack.enter_context(fronted(*addresses, flags=flags)) for _ in range(gateways)]
        for each in fronts:
            eventually(all_up(each, workers), 40, "the workers are found")
            eventually(lambda each=each: "penstock_redis_up 1.0" in metrics(each), 10)
        yield fronts, computing, redis


def asked(**fields):
    return {
        "model": "penstock-tiny", "input": "Tell me of the mill.", "background": True,
        "temperature": 0.8, "seed": 5, "max_output_tokens": 600, **fields,
    }  # fmt: skip


def begin(server, **fields):
    answer = httpx2.post(f"{server.url}/responses", json=asked(**fields), timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def get(server, name, **query):
    return httpx2.get(f"{server.url}/responses/{name}", params=query, timeout=30)


def follow(server, name, after=None, *, until=10**9):
    """The events from a number on, at most so many."""
    query = {"stream": "true"} | ({} if after is None else {"starting_after": after})
    events, url = [], f"{server.url}/responses/{name}"
    with httpx2.stream("GET", url, params=query, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
            if len(events) >= until:
                break
    return events


def ended(server, name, within_s=60):
    """The response when it has ended."""
    found = {}

    def over():
        answer = get(server, name)
        found.update(answer.json() if answer.status_code == 200 else {"status": "in_progress"})
        return found["status"] not in ("queued", "in_progress")

    eventually(over, within_s, "it has ended")
    return found


def told(events):
    """What must be the same, whoever tells it; ids differ between responses."""
    return [(event["type"], event["sequence_number"], event.get("delta")) for event in events]


def text_of(response):
    return response["output"][0]["content"][0]["text"]


@pytest.fixture(name="control", scope="module")
def control_of_one_gateway(tmp_path_factory):
    """The events and the text of the same response while nothing happens."""
    with service(tmp_path_factory.mktemp("control")) as ((one, two), _, _):
        name = begin(one)
        events = follow(one, name)
        assert events[-1]["type"] == "response.incomplete"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert told(follow(two, name)) == told(events)
        return told(events), text_of(ended(two, name))


def test_any_gateway_answers_for_it(tmp_path):
    """Fetched, followed from any place, listed, cancelled and deleted where it does not run."""
    with service(tmp_path) as ((one, two), _, redis):
        name = begin(one, max_output_tokens=4000)
        assert get(two, name).json()["status"] in ("queued", "in_progress")
        first = follow(two, name, until=20)
        assert told(follow(one, name, 9, until=10)) == told(first[10:])
        assert told(follow(two, name, 9, until=10)) == told(first[10:])
        items = httpx2.get(f"{two.url}/responses/{name}/input_items").json()["data"]
        assert items[0]["content"][0]["text"] == "Tell me of the mill."
        cancelled = httpx2.post(f"{two.url}/responses/{name}/cancel", timeout=30)
        assert cancelled.json()["status"] == "cancelled", cancelled.text
        assert get(one, name).json()["status"] == "cancelled"
        assert follow(two, name)[-1]["code"] == "response_cancelled"
        assert told(follow(two, name)) == told(follow(one, name))
        assert httpx2.delete(f"{two.url}/responses/{name}").status_code == 200
        assert get(one, name).status_code == get(two, name).status_code == 404
        assert redis.cli("KEYS", "*:log") == ""


def test_a_killed_gateway_does_not_end_it(tmp_path, control):
    """Another goes on with it by itself; who follows it there gets the same events."""
    with service(tmp_path) as ((one, two), _, _):
        name = begin(one)
        before = follow(one, name, until=30)
        one.process.send_signal(signal.SIGKILL)
        rest = follow(two, name, 29)
        assert told(before + rest) == control[0]
        assert text_of(ended(two, name)) == control[1]


def test_gateway_and_worker_killed_at_once_do_not_end_it(tmp_path, control):
    """It goes on from its log; what was told is not told otherwise, what is new has its number."""
    with service(tmp_path, workers=2) as ((one, two), workers, _):
        name = begin(one)
        before = follow(one, name, until=30)
        for process in (one.process, *workers):
            process.send_signal(signal.SIGKILL)
        with worker_at(f"unix:{tmp_path}/0"):
            rest = follow(two, name, 29)
            assert text_of(ended(two, name)) == control[1]
        assert "".join(event.get("delta") or "" for event in before + rest) == control[1]
        numbers = [event["sequence_number"] for event in before + rest]
        assert numbers == sorted(set(numbers))


def test_a_stopped_gateway_cannot_take_it_back(tmp_path, control):
    """It is adopted; when the first goes on, it adds nothing, and its followers are led on."""
    with service(tmp_path) as ((one, two), _, _):
        name = begin(one, max_output_tokens=600)
        seen = []
        reader = threading.Thread(target=lambda: seen.extend(follow(one, name)))
        reader.start()
        eventually(lambda: get(one, name).json()["status"] == "in_progress", 10)
        one.process.send_signal(signal.SIGSTOP)
        try:
            final = ended(two, name)
        finally:
            time.sleep(0.5)
            one.process.send_signal(signal.SIGCONT)
        assert text_of(final) == control[1]
        reader.join(30)
        assert told(seen) == control[0]
        assert text_of(ended(one, name)) == control[1]


def test_a_gateway_that_drains_leaves_it_to_another(tmp_path, control):
    """Without a token computed twice, and long before its drain would be over."""
    with service(tmp_path) as ((one, two), _, _):
        name = begin(one)
        follow(one, name, until=10)
        began = time.monotonic()
        one.process.send_signal(signal.SIGTERM)
        one.process.wait(20)
        assert time.monotonic() - began < 5
        assert told(follow(two, name)) == control[0]
        assert text_of(ended(two, name)) == control[1]


def test_without_redis_none_is_begun(tmp_path):
    """503 with a time to come back; those that run go on, and are all there when it is back."""
    with service(tmp_path) as ((one, two), _, redis):
        name = begin(one, max_output_tokens=3000)
        follow(one, name, until=10)
        redis.kill()
        eventually(lambda: "penstock_redis_up 0.0" in metrics(one), 10)
        refused = httpx2.post(f"{one.url}/responses", json=asked(), timeout=10)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert float(refused.headers["retry-after"]) > 0
        assert get(one, name).json()["status"] in ("in_progress", "incomplete")
        here = follow(one, name)
        assert here[-1]["type"] == "response.incomplete"
        redis.start()
        asyncio.run(set_up(Secret(redis.deploy_url)))
        eventually(lambda: "penstock_redis_up 1.0" in metrics(one), 20)
        final = ended(two, name)
        assert text_of(final) == text_of(here[-1]["response"])
        again = lambda: get(two, name, stream="true").status_code == 200  # noqa: E731
        eventually(again, 20, "its log is written again")
        assert told(follow(two, name)) == told(here)


def test_an_emptied_redis_is_written_again(tmp_path, control):
    """What runs is entered once more, log and all. It runs long enough to be running then."""
    with service(tmp_path) as ((one, two), _, redis):
        name = begin(one, max_output_tokens=1500)
        follow(one, name, until=10)
        redis.cli("FLUSHALL")
        eventually(lambda: get(two, name).status_code == 200, 10, "it is there again")
        events = told(follow(two, name))
        same = len(control[0]) * 9 // 10  # the control ends sooner
        assert events[:same] == control[0][:same]
        text = text_of(ended(two, name))
        assert "".join(delta or "" for *_, delta in events) == text
        assert len(text) > len(control[1])


def metrics(server):
    return httpx2.get(server.url.replace("/v1", "/metrics")).text
