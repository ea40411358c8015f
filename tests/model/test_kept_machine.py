"""Requests that a worker keeps, under any sequence of gateways, breaks and waits."""

from hypothesis import HealthCheck, settings

from tests.support.kept_machine import KeptMachine

TestKept = KeptMachine.TestCase
TestKept.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
