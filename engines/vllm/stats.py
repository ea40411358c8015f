"""vLLM's statistics of its iterations, as a stat logger is given them. Pure.

Its classes are documented as unstable: what is not there counts as nothing.
"""

from collections.abc import Callable
from typing import Any

from engines.self_batching.stats import EngineStats

Observed = Callable[[EngineStats], None]


class StatsReader:
    """What AsyncLLM calls a stat logger. `observed` hears of each iteration, on its loop."""

    def __init__(self) -> None:
        self.observed: Observed = _nobody
        self._iterations = self._preemptions = 0

    def record(
        self, scheduler_stats: Any, iteration_stats: Any = None, *_: object, **__: object
    ) -> None:
        """Of vLLM: once for each batch of outputs."""
        self._preemptions += int(getattr(iteration_stats, "num_preempted_reqs", 0) or 0)
        if scheduler_stats is None:
            return
        self._iterations += 1
        self.observed(
            EngineStats(
                iteration=self._iterations,
                queued=int(getattr(scheduler_stats, "num_waiting_reqs", 0) or 0),
                preemptions=self._preemptions,
            )
        )

    def log_engine_initialized(self) -> None:
        """Of vLLM; nothing is to be said."""

    def log(self) -> None:
        """Of vLLM; nothing is to be said."""

    def record_sleep_state(self, *_: object) -> None:
        """Of vLLM; it is never put to sleep here."""


def _nobody(_: EngineStats) -> None:
    """Before the engine has started."""
