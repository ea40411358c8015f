"""Scheduler over ledger with slower tiers: the same text, and books that are true."""

from hypothesis import HealthCheck, settings

from tests.support.tiered_machine import TieredMachine

TestTiers = TieredMachine.TestCase
TestTiers.settings = settings(
    max_examples=250,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
