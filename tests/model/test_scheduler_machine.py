"""Scheduler over ledger under any sequence of requests, steps, aborts and cache resets."""

from hypothesis import HealthCheck, settings

from tests.support.machine import SchedulerMachine

TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
