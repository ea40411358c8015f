"""Workers that register, and gateways that find them: real processes over a real Redis."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.redis.registry import registry_keys
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.e2e.test_workers import TOKEN, all_up, in_the_middle, metric, ready, streamed
from tests.support.command import ROOT, clean_environment, served
from tests.support.live import eventually
from tests.support.redis_server import free_port, needs_redis, redis_server

pytestmark = needs_redis

MEMBERS = registry_keys("worker")[0]


@pytest.fixture
def redis(tmp_path):
    with redis_server(tmp_path / "redis", users=True) as server:
        asyncio.run(set_up(Secret(server.deploy_url)))
        yield server


class Worker:
    """A worker process at an address of its own, which can be started again."""

    def __init__(self, redis, *arguments):
        self.address = f"127.0.0.1:{free_port()}"
        self._arguments = arguments
        self._environment = {"PENSTOCK_WORKER_TOKEN": TOKEN, "PENSTOCK_REDIS": redis.url}
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "worker", "--engine", "ledger",
             "--listen", self.address, *self._arguments],
            cwd=ROOT, env=clean_environment(**self._environment),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert any(line.startswith("Worker at ") for line in self.process.stdout)
        return self

    def kill(self):
        self.process.kill()
        self.process.communicate(timeout=10)


@contextlib.contextmanager
def workers(redis, count, *arguments):
    made = [Worker(redis, *arguments) for _ in range(count)]
    try:
        with ThreadPoolExecutor(count) as starters:
            list(starters.map(Worker.start, made))
        yield made
    finally:
        for one in made:
            if one.process is not None:
                one.kill()


def gateway(redis, *arguments):
    return served(
        *arguments, command="gateway", PENSTOCK_WORKER_TOKEN=TOKEN, PENSTOCK_REDIS=redis.url
    )


def phase(server):
    return ready(server)[1]["phase"]


def test_workers_are_found_lost_and_found_again(redis):
    """One that is killed is taken off the list when its lease ends, and is back when it is."""
    with workers(redis, 2) as (one, other), gateway(redis) as server:
        eventually(all_up(server, 2), 20, "both are found")
        undisturbed = [streamed(server, number) for number in range(4)]
        with ThreadPoolExecutor(4) as clients:
            running = in_the_middle(server, clients)
            other.kill()
            assert [each.result() for each in running] == undisturbed
        eventually(all_up(server, 1), 10, "its lease ends")
        assert redis.cli("HKEYS", MEMBERS) == one.address
        other.start()
        eventually(all_up(server, 2), 10, "it is found again")
        assert metric(server, "penstock_replicas_up") == 2
        assert server.stop() == 0
        assert redis.cli("HLEN", registry_keys("gateway")[0]) == "0"


def test_without_redis_everything_goes_on(redis):
    """Streams, new ones, readiness; what dies is still replaced from the last known list."""
    with workers(redis, 2) as (one, _), gateway(redis) as server:
        eventually(all_up(server, 2), 20, "both are found")
        assert metric(server, "penstock_redis_up") == 1
        undisturbed = [streamed(server, number) for number in range(4)]
        with ThreadPoolExecutor(4) as clients:
            running = in_the_middle(server, clients)
            redis.kill()
            eventually(lambda: metric(server, "penstock_redis_up") == 0, 5, "it is missed")
            assert [each.result() for each in running] == undisturbed
        assert metric(server, "penstock_migrations_total") == 0
        assert [streamed(server, number) for number in range(4)] == undisturbed
        one.kill()
        eventually(lambda: phase(server) == "1 of 2 workers up", 10, "it is gone")
        one.start()
        eventually(all_up(server, 2), 10, "it is back, at its address")
        redis.start()
        asyncio.run(set_up(Secret(redis.deploy_url)))
        eventually(lambda: redis.try_cli("HLEN", MEMBERS) == "2", 10, "they register again")
        eventually(lambda: metric(server, "penstock_redis_up") == 1, 10, "it is found again")
        assert metric(server, "penstock_redis_breaker_openings_total") == 1
        assert streamed(server) == undisturbed[0]
        assert metric(server, "penstock_migrations_total") == 0


def test_a_token_costs_no_command(redis):
    """Nor does a request of this class, so far as the registry goes: only time does."""
    with workers(redis, 1), gateway(redis) as server:
        eventually(all_up(server, 1), 20, "it is found")
        commands = 'penstock_redis_commands_total{purpose="%s"}'
        streamed(server, max_tokens=6000)
        for purpose in ("records", "limits"):
            assert metric(server, commands % purpose) <= 3
        assert metric(server, commands % "registry") >= 1


def test_a_drain_is_heard_of_by_every_gateway(redis):
    """The worker finishes what it has, is sent nothing more, and leaves the list."""
    with (
        workers(redis, 2) as (one, _),
        gateway(redis) as server,
        gateway(redis) as second,
    ):
        for each in (server, second):
            eventually(all_up(each, 2), 20, "both are found")
        undisturbed = [streamed(server, number) for number in range(4)]
        with ThreadPoolExecutor(4) as clients:
            running = in_the_middle(server, clients)
            one.process.send_signal(signal.SIGTERM)
            told = lambda: '"state":"draining"' in redis.cli("HGET", MEMBERS, one.address)  # noqa: E731
            eventually(lambda: told() or one.process.poll() is not None, 5, "it says so")
            assert streamed(second) == undisturbed[0]
            assert [each.result() for each in running] == undisturbed
        assert one.process.wait(30) == 0
        for each in (server, second):
            eventually(all_up(each, 1), 10, "it has left")
        assert metric(server, "penstock_migrations_total") == 0


def test_a_frozen_worker_is_passed_over_and_comes_back(redis):
    """Its streams go on elsewhere; thawed, it finds its lease gone, and has a new one."""
    with workers(redis, 2) as (one, _), gateway(redis) as server:
        eventually(all_up(server, 2), 20, "both are found")
        undisturbed = [streamed(server, number) for number in range(4)]
        epoch = int(redis.cli("HGET", MEMBERS, one.address).split()[0])
        with ThreadPoolExecutor(4) as clients:
            running = in_the_middle(server, clients)
            one.process.send_signal(signal.SIGSTOP)
            assert [each.result() for each in running] == undisturbed
        eventually(all_up(server, 1), 20, "its lease has ended")
        one.process.send_signal(signal.SIGCONT)
        eventually(all_up(server, 2), 20, "it is found again")
        assert int(redis.cli("HGET", MEMBERS, one.address).split()[0]) > epoch


def test_a_worker_that_is_named_and_one_that_is_found(redis):
    """Both serve; the one that is named is on the list whatever Redis says."""
    with workers(redis, 2) as (named, found), gateway(redis, "--worker", named.address) as server:
        eventually(all_up(server, 2), 20, "both are there")
        named.kill()
        found.kill()
        eventually(lambda: phase(server) == "0 of 1 workers up", 15, "the found one is dropped")
        assert ready(server)[0] == 503


def test_workers_of_other_models_and_beyond_this_machine_are_left_alone(redis):
    """One serves something else; one is where only TLS may go."""
    with workers(redis, 1) as (one,), gateway(redis) as server:
        eventually(all_up(server, 1), 20, "it is found")
        told = redis.cli("HGET", MEMBERS, one.address).split(" ", 2)[2]
        for address, facts in (
            ("127.0.0.1:1", told.replace("penstock-tiny", "another")),
            ("192.0.2.1:8010", told),
        ):
            row = f"1 life {facts.replace(one.address, address)}"
            redis.cli("HSET", MEMBERS, address, row)
            redis.cli("ZADD", registry_keys("worker")[1], "99999999999999", address)
        line = _line_of(server, "192.0.2.1:8010 is beyond this machine")
        assert "cannot be fronted" in line
        assert all_up(server, 1)()


def _line_of(server, words):
    for line in server.process.stderr:
        if words in line.decode():
            return line.decode()
    pytest.fail(f"not said: {words}")


def test_a_gateway_starts_without_redis(tmp_path):
    """It waits for workers, and answers meanwhile."""
    url = f"redis://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "gateway", "--port", "0", "--redis", url],
        cwd=ROOT, env=clean_environment(PENSTOCK_WORKER_TOKEN=TOKEN),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = next(line for line in process.stderr if "Redis cannot be reached" in line)
        assert "going on without it" in line
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.communicate()
