"""One key, one generation: repeated and racing requests, whole and streamed, over two gateways."""

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.e2e.test_resume import Told, chat, cluster, read
from tests.e2e.test_workers import all_up, fronted, metric, worker_at
from tests.support.command import body, served
from tests.support.live import eventually
from tests.support.redis_server import needs_redis, redis_server

ONE = {"idempotency-key": "order-1"}


def whole(**fields):
    return body(**{"temperature": 0.8, "max_tokens": 600, **fields})


def post(server, asked, headers=None, **more):
    url = f"{server.url}/chat/completions"
    return httpx2.post(url, json=asked, headers=headers, timeout=60, **more)


@pytest.fixture(name="server", scope="module")
def one_server():
    with served("--engine", "ledger") as server:
        yield server


def test_the_same_key_gives_the_same_answer(server):
    """Unseeded, so two generations would differ; id and time are those of the first."""
    one, two = post(server, whole(), ONE), post(server, whole(), ONE)
    assert one.status_code == two.status_code == 200
    assert one.json() == two.json()
    assert post(server, whole(), {"idempotency-key": "order-2"}).json() != one.json()
    assert post(server, whole()).json()["id"] != post(server, whole()).json()["id"]


def test_another_body_with_the_same_key_is_refused(server):
    """And nothing of the first is told."""
    key = {"idempotency-key": "order-3"}
    first = post(server, whole(), key)
    refused = post(server, whole(max_tokens=5), key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert post(server, whole(), key).json() == first.json()


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
def test_a_key_that_is_none_is_refused(server, key):
    """With what one looks like."""
    refused = post(server, whole(), {"idempotency-key": key.encode()})
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        400,
        "invalid_idempotency_key",
    )


def test_what_was_refused_may_be_asked_again(server):
    """A key stands for a call that began, not for an error."""
    key = {"idempotency-key": "order-4"}
    wrong = post(server, whole(temperature=9), key)
    assert wrong.status_code == 400
    assert post(server, whole(), key).status_code == 200


def test_a_place_in_a_call_that_is_no_more_is_refused(server):
    """Its reader would append another text to what it has."""
    key = {"idempotency-key": "order-6"}
    refused = post(server, chat(), {**key, "last-event-id": "117"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "stream_not_found")
    assert post(server, whole(), key).status_code == 200


def test_a_key_and_no_keeping_do_not_go_together(server):
    """One of the two would be ignored."""
    refused = post(server, whole(), {**ONE, "x-stream-durability": "none"})
    assert refused.status_code == 400


def test_keys_of_others_are_others():
    """Each tenant has its own."""
    keys = {"PENSTOCK_API_KEY": "key-of-ada-0123456789,key-of-bob-0123456789"}
    with served("--engine", "ledger", **keys) as server:
        answers = [
            post(server, whole(), {**ONE, "authorization": f"Bearer key-of-{name}-0123456789"})
            for name in ("ada", "bob", "ada")
        ]
        told = [answer.json()["id"] for answer in answers]
        assert told[0] == told[2] != told[1]


def test_a_client_that_gives_up_and_asks_again_gets_the_one_answer(server):
    """It goes on without its reader, and is there when the retry comes."""
    key, asked = {"idempotency-key": "order-5"}, whole(max_tokens=6000)
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(f"{server.url}/chat/completions", json=asked, headers=key, timeout=0.2)
    before = metric(server, "penstock_streams_resumed_total")
    one = post(server, asked, key)
    assert one.json()["usage"]["completion_tokens"] == 6000
    assert post(server, asked, key).json() == one.json()
    assert metric(server, "penstock_streams_resumed_total") - before == 2  # both joined the first


def test_a_stream_is_joined_where_its_reader_is(tmp_path):
    """Asked for again with a place, it goes on from there; without, from its start."""
    with cluster(tmp_path, gateways=1) as (one,):
        asked, control, told = chat(), Told(), Told()
        key = {"idempotency-key": "stream-1"}
        read(one, asked, control)
        read(one, asked, told, events=6, headers=key)
        assert read(one, asked, told, headers={**key, "last-event-id": told.place}) == (200, None)
        assert told.whole == control.whole
        again = Told()
        assert read(one, asked, again, headers=key) == (200, None)
        assert again.whole == control.whole


def test_a_worker_that_is_slow_to_say_is_waited_for(tmp_path):
    """A duplicate comes while it hangs: that is no reason to fail, nor to begin another call."""
    address = f"unix:{tmp_path}/0"
    with worker_at(address) as worker, fronted(address) as front, ThreadPoolExecutor(1) as clients:
        eventually(all_up(front, 1), 40, "it is found")
        key = {"idempotency-key": "slow-1"}
        first = post(front, whole(), key)
        worker.send_signal(signal.SIGSTOP)
        second = clients.submit(post, front, whole(), key)
        time.sleep(1.2)  # longer than one question may take
        worker.send_signal(signal.SIGCONT)
        assert second.result().json() == first.json()


def test_racing_requests_are_one_call(server):
    """Streamed and whole, all at once."""
    start = threading.Barrier(8)

    def ask(number):
        key = {"idempotency-key": f"race-{number // 8}"}
        start.wait(10)
        return post(server, whole(max_tokens=300), key).json()

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(ask, range(32)))
    for race in range(4):
        told = answers[8 * race : 8 * race + 8]
        assert all(answer == told[0] for answer in told)
    assert len({answer["id"] for answer in answers}) == 4


@needs_redis
def test_gateways_have_their_claims_in_common(tmp_path):
    """Racing duplicates over both: one generation for each key."""
    with redis_server(tmp_path / "redis") as redis:
        asyncio.run(set_up(Secret(redis.deploy_url)))
        flags = ("--redis", redis.url)
        with cluster(tmp_path, front=flags) as fronts, ThreadPoolExecutor(16) as clients:
            for front in fronts:
                eventually(lambda front=front: metric(front, "penstock_redis_up") == 1)
            start = threading.Barrier(16)

            def ask(number):
                key = {"idempotency-key": f"race-{number // 16}"}
                start.wait(20)
                return post(fronts[number % 2], whole(max_tokens=200), key).json()

            answers = list(clients.map(ask, range(160)))
            assert len({answer["id"] for answer in answers}) == 10
            for answer in answers:
                (first, *_) = (each for each in answers if each["id"] == answer["id"])
                assert answer == first
