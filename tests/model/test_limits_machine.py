"""Quotas under any sequence of calls, ends, lost gateways and clocks, wherever they are counted."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.limits_machine import InRedis, LimitsMachine
from tests.support.redis_server import needs_redis, redis_server

TestInMemory = LimitsMachine.TestCase
TestInMemory.settings = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@needs_redis
def test_in_redis(server):
    """The functions of the library, in a real one, on a clock that is moved."""

    class Machine(LimitsMachine):
        def open_world(self):
            return InRedis(server)

    many = settings(TestInMemory.settings, max_examples=150)
    run_state_machine_as_test(Machine, settings=many)
