"""Streams that were asked to be durable outlive gateway and worker together."""

import asyncio
import signal

import httpx2

from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.e2e.test_durable_responses import metrics, service
from tests.e2e.test_resume import SORTS, Told, chat, read, resume
from tests.e2e.test_workers import ready, worker_at
from tests.support.command import body, served
from tests.support.live import eventually
from tests.support.redis_server import needs_redis

pytestmark = needs_redis

DURABLE = {"x-stream-durability": "durable"}


def whole(server, asked, **headers):
    told = Told()
    assert read(server, asked, told, headers={**DURABLE, **headers}) == (200, None)
    assert told.done
    return told


def written(redis):
    """The calls that the journal has, but for those of which only a fence is left."""
    keys = redis.cli("KEYS", "penstock:*:call").split()
    return [key for key in keys if redis.cli("HEXISTS", key, "record") == "1"]


def forgotten_soon(redis):
    """Whether each is kept for a minute at most."""
    return all(0 < int(redis.cli("PTTL", key)) <= 60_000 for key in written(redis))


def test_a_socket_that_is_cut_at_any_event_loses_nothing(tmp_path):
    """Every sort of stream, cut at each of its events, goes on behind the other gateway."""
    with service(tmp_path) as ((one, two), _, redis):
        for name, asked in SORTS.items():
            control = whole(one, asked)
            cut = 0
            while True:
                cut += 1
                told = Told()
                assert read(one, asked, told, events=cut, headers=DURABLE) == (200, None)
                if told.done:
                    break
                assert told.headers["x-stream-resume"] == "durable; ttl=600"
                assert resume(two, told) == (200, None), (name, cut)
                assert told.whole == control.whole, (name, cut)
            assert cut > 3, name
        eventually(lambda: forgotten_soon(redis), 10, "what was delivered is soon forgotten")


def test_gateway_and_worker_killed_at_once_cost_nothing(tmp_path):
    """Every sort of stream goes on from what was written down."""
    with service(tmp_path) as ((one, two), workers, _):
        controls = {name: whole(two, asked).whole for name, asked in SORTS.items()}
        cut = {name: Told() for name in SORTS}
        for name, asked in SORTS.items():
            read(one, asked, cut[name], events=4, headers=DURABLE)
        for process in (one.process, *workers):
            process.send_signal(signal.SIGKILL)
        with worker_at(f"unix:{tmp_path}/1"):
            eventually(lambda: "1 of 2" in ready(two)[1]["phase"], 40, "a worker is there")
            for name, told in cut.items():
                assert told.done or resume(two, told) == (200, None), name
                assert told.whole == controls[name], name


def test_what_ended_unread_is_there_later(tmp_path):
    """From the journal alone, when every process that knew it is gone; then it is forgotten."""
    asked = chat(max_tokens=300)
    with service(tmp_path) as ((one, two), workers, redis):
        control = Told()
        assert read(one, asked, control) == (200, None)
        told = Told()
        read(one, asked, told, events=3, headers=DURABLE)
        eventually(lambda: len(written(redis)) == 1, 5)
        (key,) = written(redis)
        eventually(lambda: redis.cli("HGET", key, "ending"), 20, "it has ended unread")
        for process in (one.process, *workers):
            process.send_signal(signal.SIGKILL)
        with worker_at(f"unix:{tmp_path}/1"):
            eventually(lambda: "1 of 2" in ready(two)[1]["phase"], 40, "a worker is there")
            assert resume(two, told) == (200, None)
        assert told.whole == control.whole
        eventually(lambda: forgotten_soon(redis), 5, "it was delivered")


def test_a_key_finds_what_only_the_journal_has(tmp_path):
    """A retry that can only POST goes on from its place."""
    asked, key = chat(max_tokens=300), {"idempotency-key": "one"}
    with service(tmp_path) as ((one, two), workers, _):
        control = whole(one, asked)
        told = Told()
        read(one, asked, told, events=9, headers=DURABLE | key)
        for process in (one.process, *workers):
            process.send_signal(signal.SIGKILL)
        with worker_at(f"unix:{tmp_path}/1"):
            again = DURABLE | key | {"last-event-id": told.place}
            eventually(lambda: "1 of 2" in ready(two)[1]["phase"], 40, "a worker is there")
            assert read(two, asked, told, headers=again) == (200, None)
        assert told.whole == control.whole


def test_a_stream_is_its_owners(tmp_path):
    """Another route, and another id, find nothing."""
    with service(tmp_path, gateways=1) as ((one,), _, _):
        told = Told()
        read(one, chat(max_tokens=3000), told, events=3, headers=DURABLE)
        name = told.headers["x-stream-id"]
        other = name.replace("chatcmpl", "cmpl")
        assert httpx2.get(f"{one.url}/completions/{other}/stream").status_code == 404
        assert (
            httpx2.get(
                f"{one.url}/chat/completions/{name[:-1]}{'1' if name[-1] == '0' else '0'}/stream"
            ).status_code
            == 404
        )


def test_a_gateway_without_redis_says_so():
    """Nothing is called durable that is not."""
    with served("--engine", "ledger") as server:
        answer = httpx2.post(f"{server.url}/chat/completions", json=chat(), headers=DURABLE)
        assert (answer.status_code, answer.json()["error"]["code"]) == (
            400,
            "durability_unavailable",
        )


def test_without_redis_none_is_begun_and_all_go_on(tmp_path):
    """503 for new ones; those that run are told on, and are kept by their workers."""
    with service(tmp_path) as ((one, two), _, redis):
        control = whole(one, chat(max_tokens=2000))
        told = Told()
        killed = []

        def kill_once():
            if not killed:
                killed.append(redis.kill())

        asked = chat(max_tokens=2000)
        assert read(one, asked, told, headers=DURABLE, events=40, when=kill_once) == (200, None)
        eventually(lambda: "penstock_redis_up 0.0" in metrics(two), 10)
        answer = httpx2.post(f"{one.url}/chat/completions", json=asked, headers=DURABLE)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert resume(two, told) == (200, None)
        assert told.whole == control.whole
        assert httpx2.post(f"{one.url}/chat/completions", json=body()).status_code == 200
        redis.start()
        asyncio.run(set_up(Secret(redis.deploy_url)))
        eventually(lambda: "penstock_redis_up 1.0" in metrics(two), 20)
        assert whole(two, asked).whole == control.whole
