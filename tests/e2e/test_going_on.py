"""Gateways that end, hang or are just there while streams run: who comes back loses nothing."""

import asyncio
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx2
import pytest

from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.e2e.test_resume import REPLICATED, Told, chat, cluster, read, resume
from tests.e2e.test_workers import fronted, metric, ready, worker_at
from tests.support.live import eventually
from tests.support.redis_server import needs_redis, redis_server

LONG = chat(max_tokens=6000)


def begun(server, asked, told, count=5, **more):
    """Read a stream in a thread of its own; returns that, once so many events have come."""
    seen, enough = [], threading.Event()

    def count_one():
        seen.append(1)
        if len(seen) == count:
            enough.set()

    def follow():
        try:
            return read(server, asked, told, when=count_one, **more)
        except httpx2.HTTPError as error:
            return type(error)

    clients = ThreadPoolExecutor(1)
    reading = clients.submit(follow)
    clients.shutdown(wait=False)
    assert enough.wait(30), reading
    return reading


def test_a_gateway_whose_time_to_drain_is_over_leaves_its_streams(tmp_path):
    """They are cut, as by a kill, and not told to have failed: the other goes on with them."""
    with cluster(tmp_path, front=("--drain-timeout-s", "0.2")) as (one, two):
        control, told = Told(), Told()
        read(two, LONG, control)
        reading = begun(one, LONG, told)
        assert one.stop() == 0
        assert issubclass(reading.result(30), httpx2.HTTPError)
        assert not told.done
        logged = [json.loads(line) for line in one.process.stderr.read().splitlines()]
        assert [line["outcome"] for line in logged if "outcome" in line][-1] == "cut"
        assert not [line for line in logged if line.get("message") == "fault"]
        assert resume(two, told) == (200, None)
        assert told.whole == control.whole


def test_a_gateway_that_is_just_there_waits_for_its_workers(tmp_path):
    """A stream of a worker that it has not reached yet is not said to be none."""
    one, two = f"unix:{tmp_path}/one", f"unix:{tmp_path}/two"
    with worker_at(one), worker_at(two) as late:
        told, control = Told(), Told()
        with fronted(two) as first:
            read(first, LONG, control)
            begun(first, LONG, told)
            first.process.kill()
        late.send_signal(signal.SIGSTOP)
        with fronted(one, two) as second:
            eventually(lambda: ready(second)[1]["phase"] == "1 of 2 workers up")
            threading.Timer(0.5, late.send_signal, [signal.SIGCONT]).start()
            assert resume(second, told) == (200, None)
        assert told.whole == control.whole


def test_what_no_worker_has_is_said_to_be_none_although_one_is_away(tmp_path):
    """After a while: its client must not wait for ever."""
    one, two = f"unix:{tmp_path}/one", f"unix:{tmp_path}/two"
    with worker_at(one), fronted(one, two) as server:
        eventually(lambda: ready(server)[1]["phase"] == "1 of 2 workers up")
        asked = time.monotonic()
        never = Told(headers={"x-stream-id": f"chatcmpl-{'0' * 24}"})
        status, error = resume(server, never)
        assert (status, error["code"]) == (404, "stream_not_found")
        assert 1 < time.monotonic() - asked < 5


@pytest.mark.parametrize("stopped_s", [1, 10])
def test_a_gateway_that_hung_tells_nothing_else(tmp_path, stopped_s):
    """Nor does it take the stream back: what it still says is from the same tokens, to its end."""
    with cluster(tmp_path) as (one, two):
        control, told = Told(), Told()
        asked = chat(max_tokens=6000, n=2)
        read(two, asked, control)
        url = f"{one.url}/chat/completions"
        with httpx2.stream("POST", url, json=asked, headers=REPLICATED, timeout=60) as answer:
            lines = answer.iter_lines()
            hung = Told(headers=dict(answer.headers))
            while len(hung.texts.get(0, "")) < 20:
                hung.take(next(lines))
            one.process.send_signal(signal.SIGSTOP)
            told.headers = hung.headers
            assert resume(two, told, events=5) == (200, None)
            time.sleep(stopped_s)
            one.process.send_signal(signal.SIGCONT)
            assert resume(two, told) == (200, None)
            assert told.whole == control.whole
            end = _rest(lines, hung)
        assert all(control.texts[index].startswith(text) for index, text in hung.texts.items())
        assert end in {"[DONE]", "stream_taken", "stream_not_found", "cut"}
        assert end != "[DONE]" or hung.texts == control.texts


@contextmanager
def gateways(tmp_path, count, *addresses):
    """Over these workers; more than one have their claims in common."""
    with ExitStack() as stack:
        flags = ()
        if count > 1:
            redis = stack.enter_context(redis_server(tmp_path / "redis"))
            asyncio.run(set_up(Secret(redis.deploy_url)))
            flags = ("--redis", redis.url)
        yield [stack.enter_context(fronted(*addresses, flags=flags)) for _ in range(count)]


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=needs_redis)])
def test_who_reads_beside_another_follows_it(tmp_path, count):
    """The worker of their stream dies: both have all of it, at one gateway or at two."""
    addresses = [f"unix:{tmp_path}/{name}" for name in ("one", "two")]
    key = {"idempotency-key": "order-1"}
    with worker_at(addresses[0]) as first, gateways(tmp_path, count, *addresses) as fronts:
        control, told, beside = Told(), Told(), Told()
        asked = chat(max_tokens=6000, n=2)
        read(fronts[0], asked, control)
        for front in fronts:
            eventually(lambda front=front: metric(front, "penstock_redis_up") or count == 1)
        reading = begun(fronts[0], asked, told, headers=key)
        watching = begun(fronts[-1], asked, beside, headers=key)
        assert beside.headers["x-stream-id"] == told.headers["x-stream-id"]
        assert not reading.done()
        first.kill()
        with worker_at(addresses[1]):
            assert reading.result(60) == watching.result(60) == (200, None)
        assert told.whole == beside.whole == control.whole


def test_who_comes_back_often_takes_one_place(tmp_path):
    """What goes on unread keeps its place, and not one for each time that it was left."""
    flags = ("--max-running", "2")
    address = f"unix:{tmp_path}/one"
    with (
        worker_at(address, *flags) as _,
        fronted(address, flags=("--max-queued-requests", "2")) as one,
    ):
        control, told = Told(), Told()
        read(one, LONG, control)
        read(one, LONG, told, events=1, headers=REPLICATED)
        for _ in range(12):
            assert resume(one, told, events=1) == (200, None)
        assert read(one, chat(max_tokens=4), Told()) == (200, None)
        assert resume(one, told) == (200, None)
        assert told.whole == control.whole


def stopping(control):
    """A stop string that the first choice meets early, and the second never."""
    one, two = control.texts[0], control.texts[1]
    pieces = (one[at : at + 3] for at in range(60, 400))
    return next(piece for piece in pieces if piece not in two and piece.isascii())


@pytest.mark.parametrize("sort", ["a choice has ended", "log-probabilities"])
def test_what_has_moved_goes_on_behind_another_gateway(tmp_path, sort):
    """Its first worker dies, then its gateway: all of it is told, also what ended before."""
    addresses = [f"unix:{tmp_path}/{name}" for name in ("one", "two")]
    torch = sort == "log-probabilities"
    flags = ("--engine", "torch", "--dtype", "float32") if torch else ()
    asked = chat(max_tokens=400, logprobs=True, top_logprobs=2) if torch else LONG
    with worker_at(addresses[0], *flags) as first, gateways(tmp_path, 1, *addresses) as (one,):
        if not torch:
            control = Told()
            read(one, chat(max_tokens=6000, n=2), control)
            asked = chat(max_tokens=6000, n=2, stop=[stopping(control)])
        with fronted(*addresses) as two:
            control, told = Told(), Told()
            read(two, asked, control)
            reading = begun(one, asked, told, headers=REPLICATED)
            eventually(lambda: torch or told.ends)
            first.kill()
            with worker_at(addresses[1], *flags):
                place = told.place
                eventually(lambda: told.place != place, 40, "it has moved")
                one.process.kill()
                assert issubclass(reading.result(30), httpx2.HTTPError)
                eventually(lambda: ready(two)[0] == 200, 40)
                assert resume(two, told) == (200, None)
        assert told.whole == control.whole
        assert told.scores == control.scores
        assert bool(told.scores) == torch


def _rest(lines, told):
    """Read on; how it ended."""
    try:
        for line in lines:
            if line.startswith("data: {") and "error" in (chunk := json.loads(line[6:])):
                return chunk["error"]["code"]
            told.take(line)
            if told.done:
                return "[DONE]"
    except httpx2.HTTPError:
        return "cut"
    return "a clean end"
