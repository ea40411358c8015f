"""Stored responses behind two real gateways, one worker and one Redis, by the openai SDK."""

import asyncio
from contextlib import ExitStack, contextmanager

import openai
import pytest

from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.e2e.test_redis_responses import KEEPS
from tests.e2e.test_workers import all_up, fronted, metric, worker_at
from tests.support.command import MODEL
from tests.support.live import eventually
from tests.support.redis_server import RedisServer, needs_redis

pytestmark = needs_redis

SENT = 'penstock_redis_commands_total{purpose="responses"}'
FAILED = 'penstock_redis_failures_total{purpose="responses"}'
ADA, BOB = "key-of-ada-0123456789", "key-of-bob-0123456789"


@contextmanager
def cluster(folder, *flags):
    """Redis, and how to start a gateway over one worker, and to get a client of it."""
    redis = RedisServer(folder / "redis", *KEEPS)
    with ExitStack() as stack:
        stack.callback(redis.close)
        asyncio.run(set_up(Secret(redis.start().url)))
        address = f"unix:{folder}/worker"
        stack.enter_context(worker_at(address))

        def gateway():
            front = stack.enter_context(fronted(address, flags=("--redis", redis.url, *flags)))
            eventually(all_up(front, 1), 40, "the worker is found")
            eventually(lambda: metric(front, "penstock_redis_up") == 1)
            return front

        def sdk(front, key="unused"):
            client = openai.OpenAI(base_url=front.url, api_key=key, max_retries=0)
            return stack.enter_context(client)

        yield redis, gateway, sdk


def said(client, text, **fields):
    return client.responses.create(model=MODEL, input=text, max_output_tokens=8, **fields)


def test_a_conversation_goes_on_anywhere(tmp_path):
    """Made by one; fetched, continued, listed, referred to and deleted by the other."""
    with cluster(tmp_path) as (_, gateway, sdk):
        one, two = sdk(gateway()), sdk(gateway())
        first = said(one, "Hello")
        assert two.responses.retrieve(first.id) == first
        second = said(two, "And then?", previous_response_id=first.id)
        listed = one.responses.input_items.list(second.id, order="asc").data
        assert [item.role for item in listed] == ["user", "assistant", "user"]
        assert listed == two.responses.input_items.list(second.id, order="asc").data
        reference = {"type": "item_reference", "id": listed[0].id}
        assert said(one, [reference]).status == "incomplete"
        two.responses.delete(first.id)
        for client in (one, two):
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(first.id)
            with pytest.raises(openai.NotFoundError, match="previous"):
                said(client, "x", previous_response_id=second.id)


def test_what_a_conversation_costs_redis(tmp_path):
    """Two commands for each response, and at most two for each that it goes back to."""
    with cluster(tmp_path) as (_, gateway, sdk):
        fronts = gateway(), gateway()
        one, two = map(sdk, fronts)
        first = said(one, "Hello")
        assert metric(fronts[0], SENT) == 2
        second = said(two, "And?", previous_response_id=first.id)
        eventually(lambda: metric(fronts[1], SENT) == 2 + 2)
        said(one, "And?", previous_response_id=second.id)
        eventually(lambda: metric(fronts[0], SENT) >= 2 + 2 + 3)
        assert metric(fronts[0], SENT) <= 2 + 2 + 4
        assert not metric(fronts[0], FAILED) + metric(fronts[1], FAILED)


def test_what_is_streamed_or_in_the_background_is_there_too(tmp_path):
    """When its last event is read; the other gateway has the same object."""
    with cluster(tmp_path) as (_, gateway, sdk):
        one, two = sdk(gateway()), sdk(gateway())
        *_, last = said(one, "Hello", stream=True)
        assert two.responses.retrieve(last.response.id) == last.response
        *_, ended = said(one, "Hello", stream=True, background=True)
        assert two.responses.retrieve(ended.response.id) == ended.response
        assert said(two, "And?", previous_response_id=ended.response.id).status == "incomplete"


def test_a_gateway_that_ends_takes_nothing_with_it(tmp_path):
    """Stopped, or killed: the next one goes on with what it made."""
    with cluster(tmp_path) as (_, gateway, sdk):
        killed, stopped = gateway(), gateway()
        made = [said(sdk(front), "Hello") for front in (killed, stopped)]
        killed.process.kill()
        assert stopped.stop() == 0
        after = sdk(gateway())
        for first in made:
            assert after.responses.retrieve(first.id) == first
            assert said(after, "And?", previous_response_id=first.id).status == "incomplete"


def test_each_key_has_its_own(tmp_path):
    """On every gateway: what Ada made is not there for Bob."""
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"keys:\n- {{name: ada, key: {ADA}}}\n- {{name: bob, key: {BOB}}}\n")
    with cluster(tmp_path, "--api-key-file", str(keys), "--metrics-public") as (
        redis,
        gateway,
        sdk,
    ):
        one, two = gateway(), gateway()
        first = said(sdk(one, ADA), "Hello")
        with pytest.raises(openai.NotFoundError):
            sdk(two, BOB).responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError):
            sdk(two, BOB).responses.delete(first.id)
        assert sdk(two, ADA).responses.retrieve(first.id) == first
        assert first.id not in redis.cli("KEYS", "*")


def test_without_redis_each_gives_what_it_has(tmp_path):
    """Made by it: answered. Made elsewhere: 503, for it may be there. All of it heals."""
    with cluster(tmp_path) as (redis, gateway, sdk):
        fronts = gateway(), gateway()
        one, two = map(sdk, fronts)
        before = said(one, "Hello")
        redis.kill()
        during = said(one, "Hello")
        for made in (before, during):
            assert one.responses.retrieve(made.id) == made
            for asked in (two.responses.retrieve, two.responses.delete, one.responses.delete):
                with pytest.raises(openai.InternalServerError) as told:
                    asked(made.id)
                assert told.value.status_code == 503
                assert told.value.code == "store_unavailable"
                assert told.value.response.headers["retry-after"] == "2"
        assert said(one, "And?", previous_response_id=during.id).status == "incomplete"
        redis.start()
        for front in fronts:
            eventually(lambda front=front: metric(front, "penstock_redis_up") == 1, 20)
        eventually(lambda: retrieved(two, during.id), 20)
        assert two.responses.retrieve(before.id) == before
        assert two.responses.retrieve(during.id) == during


def retrieved(client, name):
    try:
        return client.responses.retrieve(name)
    except openai.NotFoundError:
        return None


def test_the_oldest_go_whoever_made_them(tmp_path):
    """One budget over both gateways; what is used stays."""
    with cluster(tmp_path, "--response-store-bytes", "20000") as (redis, gateway, sdk):
        clients = [sdk(gateway()) for _ in range(2)]
        first = said(clients[0], "Hello")
        made = [first]
        for number in range(16):
            made.append(said(clients[number % 2], "Hello"))
            clients[1].responses.retrieve(first.id)
        eventually(lambda: stored(redis) <= 20_000)
        there = [retrieved(clients[0], each.id) is not None for each in made]
        assert there[0]
        assert there[-1]
        assert not there[1]
        assert not all(there)


def stored(redis):
    """Bytes of the responses that are in Redis, less what their first lines take."""
    keys = [key for key in redis.cli("KEYS", "*:response").splitlines() if key]
    lines = 150 * len(keys)
    return sum(1024 + int(redis.cli("STRLEN", key)) for key in keys) - lines
