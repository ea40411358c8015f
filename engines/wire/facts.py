"""What a worker serves, as a gateway needs to know it. Constant for one epoch."""

from dataclasses import dataclass

from engines.api import EngineInfo
from engines.limits import Limits


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """The engine behind an address."""

    info: EngineInfo
    limits: Limits
    version: str  # of penstock
    epoch: int  # drawn when the process starts, 64 bits: another one is another process
    ends: frozenset[int] = frozenset()  # tokens with which the model ends an answer
    grammars: bool = False  # whether its tokens have bytes, so that grammars can be checked
    kv_bytes: int = 0
    kv_namespace: bytes = b""  # of its block names; empty: it tells no KV events
