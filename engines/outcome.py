"""What steps of a scheduler have brought: the last one, and all of them together."""

from collections.abc import Mapping
from dataclasses import dataclass

from engines.api import Finish
from engines.sequence import Sequence
from engines.step import StepResult


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step brought: one new token per sampled sequence, and who ended.

    `forced` and `finishes` are by index into the lists, as what `result` says of single samples.
    """

    sequences: list[Sequence]
    tokens: list[int]
    forced: Mapping[int, list[int]]
    finishes: Mapping[int, Finish]
    result: StepResult


@dataclass(slots=True)
class Counters:
    """Totals since the engine started."""

    steps: int = 0
    preemptions: int = 0
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0
