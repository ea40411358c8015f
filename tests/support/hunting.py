"""Runs a state machine until it fails: so one knows that it would catch a bug that was seeded."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

# What a seeded bug may end a machine with, besides its own assertions.
CAUGHT = (AssertionError, LookupError, ValueError)


def hunt(machine: type[RuleBasedStateMachine], *, examples: int = 4000, steps: int = 40) -> None:
    """So many random runs of a machine, unless one fails before; that one is not made smaller."""
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(machine, settings=how)
