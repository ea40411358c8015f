"""What an engine that batches by itself may tell of an iteration. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What one iteration told; engines and versions differ in how much they tell."""

    iteration: int = 0
    queued: int = 0  # requests in its own queue
    blocks_used: int | None = None
    blocks_total: int | None = None
    preemptions: int = 0  # since start
