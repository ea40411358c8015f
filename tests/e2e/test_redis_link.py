"""The link on a real Redis that is killed, frozen, slow, empty, full, or was never there."""

import asyncio
import logging
import time
from contextlib import asynccontextmanager

import pytest

from gateway.redis.errors import (
    FunctionsMissing,
    RedisDown,
    RedisRefused,
    RedisUnusable,
    Unanswered,
)
from gateway.redis.library import VERSION, own_version, source
from gateway.redis.link import CALL_S, Purpose, RedisLink
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

SLACK_S = 0.25  # for a machine that does other things too
FOR = Purpose.RECORDS
KEY = "penstock:{test}:a"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server for tests that leave it as it was."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        asyncio.run(set_up(Secret(server.url)))
        yield server


@pytest.fixture
def server(tmp_path):
    """A server of one test."""
    with redis_server(tmp_path / "redis") as server:
        yield server


@asynccontextmanager
async def linked(url):
    link = RedisLink(Secret(url))
    link.start()
    try:
        yield link
    finally:
        await link.close()


async def up(link, within_s=10):
    async with asyncio.timeout(within_s):
        await link.came_up()
    await until(lambda: link.up)


async def until(condition, within_s=10):
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - a test waits for a fact
            await asyncio.sleep(0.01)


async def timed(call):
    """How long a call took, and what it raised."""
    began, error = time.monotonic(), None
    try:
        await call
    except RedisUnusable as raised:
        error = raised
    return time.monotonic() - began, error


def a_write(link):
    return link.command("SET", KEY, "1", "PX", 60_000, purpose=FOR)


def a_hurried_write(link, text="1"):
    return link._ask(("SET", KEY, text), KEY, FOR, again=True, hurried=True)


async def goes_down(link, ask=a_write):
    """Calls fail in time, each of them, until the breaker is open; then they cost nothing."""
    began, calls = time.monotonic(), 0
    while not link.openings:
        waited, error = await timed(ask(link))
        assert isinstance(error, RedisDown)
        assert waited < CALL_S + SLACK_S
        calls += isinstance(error, Unanswered)
        await asyncio.sleep(0.01)
    assert calls <= 2
    assert time.monotonic() - began < 1 + SLACK_S
    sent, skipped = link.counts.commands[FOR], link.counts.skipped[FOR]
    began = time.monotonic()
    for _ in range(1000):
        with pytest.raises(RedisDown):
            await a_write(link)
    assert time.monotonic() - began < SLACK_S
    assert link.counts.commands[FOR] == sent
    assert link.counts.skipped[FOR] == skipped + 1000
    assert link.openings == 1


def test_a_killed_server_is_left_alone_and_found_again(server):
    """Nothing is restarted but it."""

    async def scenario():
        async with linked(server.url) as link:
            await up(link)
            await a_write(link)
            server.kill()
            await goes_down(link)
            await asyncio.to_thread(server.start)
            await up(link)
            await a_write(link)

    asyncio.run(scenario())


def test_a_frozen_server_is_waited_for_no_longer_than_it_ever_took(server):
    """A stopped process accepts connections and says nothing: one command finds that out."""

    async def scenario():
        async with linked(server.url) as link:
            await up(link)
            for _ in range(40):  # it learns how long answers take
                await a_write(link)
            sent = link.counts.commands[FOR]
            server.freeze()
            together = [a_hurried_write(link) for _ in range(20)]
            ends = await asyncio.gather(*(timed(call) for call in together))
            assert link.silences == 1
            assert all(isinstance(error, Unanswered) for _, error in ends)
            await goes_down(link, a_hurried_write)
            assert link.counts.commands[FOR] == sent + 20
            await asyncio.sleep(1)  # in which it stays down, and nobody is asked but by probes
            assert not link.up
            server.thaw()
            await up(link)
            await a_write(link)

    asyncio.run(scenario())


def test_a_silence_ends_with_the_first_late_answer(shared, monkeypatch):
    """Who waited goes on without; what was asked is done all the same, and nothing went down."""
    for name in ("link.CALL_S", "client._ENDED_BEFORE_S"):
        monkeypatch.setattr(f"gateway.redis.{name}", 20.0)  # a slow machine is no server that died

    async def scenario():
        async with Proxy(shared.port) as proxy, linked(f"redis://127.0.0.1:{proxy.port}") as link:
            await up(link)
            for _ in range(40):
                await a_write(link)
            proxy.hole = True
            waits = link.command("SET", "penstock:{test}:b", "1", purpose=FOR)
            patient = asyncio.create_task(waits)
            with pytest.raises(Unanswered) as let_go:
                await a_hurried_write(link, "late")
            assert not let_go.value.over.done()
            with pytest.raises(RedisDown, match="is down"):
                await a_hurried_write(link)
            assert not patient.done()  # it would rather have an answer late
            proxy.hole = False
            await let_go.value.over
            await patient
            assert (link.silences, link.openings, link.up) == (1, 0, True)
            assert shared.cli("GET", KEY) == "late"
            await a_hurried_write(link)

    asyncio.run(scenario())


def test_a_loop_that_was_busy_hears_what_came_meanwhile(shared):
    """The answer is there, and nobody has read it: that is no silence."""

    async def scenario():
        async with linked(shared.url) as link:
            await up(link)
            for _ in range(40):
                await a_write(link)
            busy_s = 2 * CALL_S
            for _ in range(3):
                call = asyncio.create_task(a_hurried_write(link))
                sent = link.counts.commands[FOR]
                await until(lambda sent=sent: link.counts.commands[FOR] > sent)
                asyncio.get_running_loop().call_soon(time.sleep, busy_s)
                await call
            assert (link.silences, link.openings) == (0, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["slow", "hole", "cut"])
def test_a_network_that_is_bad_is_as_a_server_that_is_down(shared, fault):
    """Answers that are too late, that never come, and connections that end at once."""

    async def scenario():
        async with Proxy(shared.port) as proxy, linked(f"redis://127.0.0.1:{proxy.port}") as link:
            await up(link)
            if fault == "slow":
                proxy.delay_s = 0.5
            elif fault == "hole":
                proxy.hole = True
            else:
                proxy.refuses = True
                proxy.cut()
            await goes_down(link)
            await until(lambda: link.counts.failures[Purpose.PROBE] >= 2)
            assert not link.up
            proxy.delay_s, proxy.hole, proxy.refuses = 0.0, False, False
            await up(link)
            await a_write(link)

    asyncio.run(scenario())


def test_many_at_once_wait_no_longer_than_one(server):
    """A thousand calls meet a frozen server; later a thousand are answered."""

    async def scenario():
        async with linked(server.url) as link:
            await up(link)
            server.freeze()
            ends = await asyncio.gather(*(timed(a_write(link)) for _ in range(1000)))
            assert max(waited for waited, _ in ends) < CALL_S + 3 * SLACK_S
            assert all(isinstance(error, RedisDown) for _, error in ends)
            server.thaw()
            await until(lambda: link.up and not link._sending)
            answered = 0
            async with asyncio.timeout(20):
                while answered < 1000:  # a busy machine may be silent for a moment
                    calls = (timed(a_write(link)) for _ in range(200))
                    answered += sum(error is None for _, error in await asyncio.gather(*calls))
                    await until(lambda: link.up)
            connected = int(server.cli("INFO", "clients").split("connected_clients:")[1].split()[0])
            assert connected <= 64 + 2

    asyncio.run(scenario())


def test_a_server_that_is_not_there_at_the_start_is_found_later(tmp_path, caplog):
    """Starting waits for nothing, and calls are refused at once."""

    async def scenario(server):
        began = time.monotonic()
        async with linked(server.url) as link:
            _, error = await timed(a_write(link))
            assert isinstance(error, RedisDown)
            assert time.monotonic() - began < SLACK_S
            await until(lambda: link.counts.failures[Purpose.PROBE] >= 2)
            await asyncio.to_thread(server.start)
            await up(link)
            await a_write(link)
            assert link.openings == 0

    server = RedisServer(tmp_path / "redis")
    with caplog.at_level(logging.INFO, "penstock.redis"):
        try:
            asyncio.run(scenario(server))
        finally:
            server.close()
    told = [record.message for record in caplog.records]
    assert sum("cannot be reached" in line for line in told) == 1


def test_a_host_that_has_no_address_is_a_server_that_is_down():
    """Names are resolved again with each probe."""

    async def scenario():
        async with linked("redis://:password@no-such-host.invalid") as link:
            await until(lambda: link.counts.failures[Purpose.PROBE] >= 2)
            assert (await timed(a_write(link)))[0] < SLACK_S

    asyncio.run(scenario())


def test_a_full_server_is_down_until_there_is_room(server):
    """It answers, but takes no writes: whoever probes writes."""

    async def scenario():
        async with linked(server.url) as link:
            await up(link)
            server.cli("CONFIG", "SET", "maxmemory", 1)
            await goes_down(link)
            await until(lambda: link.counts.failures[Purpose.PROBE] >= 2)
            assert not link.up
            server.cli("CONFIG", "SET", "maxmemory", 0)
            await up(link)
            await a_write(link)

    asyncio.run(scenario())


def test_an_emptied_server_goes_on(server):
    """Nothing in this process relies on what was there."""

    async def scenario():
        await set_up(Secret(server.url))
        async with linked(server.url) as link:
            await up(link)
            await a_write(link)
            server.cli("FLUSHALL")
            assert await link.command("GET", KEY, purpose=FOR) is None
            assert link.openings == 0

    asyncio.run(scenario())


def test_functions_that_are_missing_are_told_once_with_what_to_run(server, caplog):
    """And nothing is taken for down; once they are there, calls go through."""

    def call(link):
        return link.call("penstock_members", [f"penstock:{{t}}:{n}" for n in "abc"], purpose=FOR)

    async def scenario():
        async with linked(server.url) as link:
            await up(link)
            for _ in range(3):
                with pytest.raises(FunctionsMissing):
                    await call(link)
            assert link.up
            await set_up(Secret(server.url))
            assert await call(link) == []

    with caplog.at_level(logging.INFO, "penstock.redis"):
        asyncio.run(scenario())
    advice = [record.message for record in caplog.records if "redis-setup" in record.message]
    assert len(advice) == 1


@pytest.mark.parametrize(("number", "advised"), [(0, 1), (VERSION, 1), (999, 0)])
def test_functions_of_another_release_are_told_of(server, caplog, number, advised):
    """Older ones, and others of the same number; newer ones are what a roll-out has."""
    own = str(own_version())
    other = source().replace(own, f"{number} 0123456789abcdef")
    server.cli("-x", "FUNCTION", "LOAD", stdin=other)

    async def scenario():
        async with linked(server.url) as link:
            await up(link)
            await until(lambda: "cmdstat_fcall:" in server.cli("INFO", "commandstats"))
            keys = [f"penstock:{{t}}:{n}" for n in "abc"]
            assert await link.call("penstock_members", keys, purpose=FOR) == []

    with caplog.at_level(logging.INFO, "penstock.redis"):
        asyncio.run(scenario())
    advice = [record.message for record in caplog.records if "redis-setup" in record.message]
    assert len(advice) == advised


def test_a_key_of_another_type_is_no_reason_to_go_down(shared, caplog):
    """It is told to who has asked for it, and once in the log; the value is not there."""

    async def scenario():
        shared.cli("SET", KEY, "a secret value")
        caplog.clear()
        async with linked(shared.url) as link:
            await up(link)
            for _ in range(5):
                with pytest.raises(RedisRefused):
                    await link.command("HGETALL", KEY, purpose=FOR)
            assert link.up

    asyncio.run(scenario())
    assert [record.message for record in caplog.records if "refused" in record.message] == [
        "Redis refused HGETALL: ResponseError WRONGTYPE"
    ]
    assert "secret value" not in caplog.text


def test_a_password_is_in_no_log_and_no_message(tmp_path, caplog):
    """Neither the right nor a wrong one, whatever fails."""
    wrong = "wrong-password-canary"

    async def scenario(server):
        async with linked(server.url.replace("runtime-password-0123", wrong)) as link:
            await until(lambda: link.counts.failures[Purpose.PROBE] >= 2)
            _, error = await timed(a_write(link))
            assert wrong not in repr(error) + repr(link.__dict__["_address"])
        async with linked(server.url) as link:
            await up(link)
            await a_write(link)
            with pytest.raises(RedisRefused):
                await link.command("CONFIG", "GET", "requirepass", purpose=FOR)
            server.kill()
            await goes_down(link)

    with (
        caplog.at_level(logging.DEBUG),
        redis_server(tmp_path / "redis", users=True) as server,
    ):
        asyncio.run(scenario(server))
    assert caplog.records
    for canary in (wrong, "runtime-password-0123"):
        assert canary not in caplog.text


def test_what_is_counted_is_what_the_server_was_sent(shared):
    """By purpose; those that went wrong too."""

    async def scenario():
        shared.cli("CONFIG", "RESETSTAT")
        async with linked(shared.url) as link:
            await up(link)
            await until(lambda: "cmdstat_fcall:" in shared.cli("INFO", "commandstats"))
            shared.cli("CONFIG", "RESETSTAT")
            for _ in range(7):
                await link.command("INCR", "penstock:{count}", purpose=FOR)
            for _ in range(5):
                keys = [f"penstock:{{t}}:{n}" for n in "abc"]
                await link.call("penstock_members", keys, purpose=Purpose.REGISTRY)
            assert link.counts.commands == {FOR: 7, Purpose.REGISTRY: 5, Purpose.PROBE: 3}
            assert not link.counts.failures
            sent = shared.cli("INFO", "commandstats")
            assert "cmdstat_incr:calls=7," in sent
            assert "cmdstat_fcall:calls=5," in sent

    asyncio.run(scenario())


@pytest.mark.parametrize("again", [True, False])
def test_a_command_whose_answer_is_lost_is_sent_again_only_where_that_is_allowed(shared, again):
    """It was done once already, which nobody knew."""

    async def scenario():
        async with Proxy(shared.port) as proxy, linked(f"redis://127.0.0.1:{proxy.port}") as link:
            await up(link)
            shared.cli("DEL", "penstock:{count}")
            proxy.delay_s = 0.1
            counting = link.command("INCR", "penstock:{count}", purpose=FOR, again=again)
            call = asyncio.create_task(counting)
            await until(lambda: shared.cli("GET", "penstock:{count}") == "1")
            proxy.delay_s = 0.0
            proxy.cut()
            if again:
                assert await call == 2
            else:
                with pytest.raises(RedisDown):
                    await call
                assert shared.cli("GET", "penstock:{count}") == "1"

    asyncio.run(scenario())


def test_a_call_that_is_cancelled_leaves_no_answer_for_the_next(shared):
    """Each gets its own, over however few connections."""

    async def scenario():
        async with Proxy(shared.port) as proxy, linked(f"redis://127.0.0.1:{proxy.port}") as link:
            await up(link)
            for number in range(10):
                proxy.delay_s = 0.05
                text = f"penstock:{{echo}}:{number}"
                late = asyncio.create_task(link.command("SET", text, number, purpose=FOR))
                await asyncio.sleep(0.01)
                late.cancel()
                await asyncio.gather(late, return_exceptions=True)
                assert late.cancelled()
                proxy.delay_s = 0.0
                assert await link.command("SETRANGE", text, 20, "x", purpose=FOR) == 21
            assert link.openings == 0

    asyncio.run(scenario())


def test_a_link_closes_at_any_moment(shared):
    """Also while it looks for the server, or has just found it; nothing is left open."""

    async def scenario(moment):
        link = RedisLink(Secret(shared.url))
        link.start()
        if moment >= 20:
            await up(link)
        for _ in range(moment % 20):
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await link.close()
        assert len(asyncio.all_tasks()) == 1

    for moment in range(40):
        asyncio.run(scenario(moment))


def test_a_caller_that_is_cancelled_ends(shared):
    """At whatever moment of its call; the link serves others as before."""

    async def scenario():
        async with linked(shared.url) as link:
            await up(link)
            for moment in range(60):
                call = asyncio.create_task(a_write(link))
                for _ in range(moment % 15):
                    await asyncio.sleep(0)
                ends = call.done()
                call.cancel()
                await asyncio.wait({call}, timeout=2)
                assert call.done()
                assert ends or call.cancelled()
            await a_write(link)
            assert link.openings == 0

    asyncio.run(scenario())
