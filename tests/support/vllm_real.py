"""Engines over a real vLLM: it is loaded once, and each test drives it by an engine of its own."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from engines.self_batching.admission import Bounds
from engines.vllm.engine import VllmEngine
from engines.vllm.opening import open_vllm
from engines.vllm.sizes import Sizes

SIZES = {
    "max_model_len": 128, "max_num_seqs": 8, "max_num_batched_tokens": 64, "block_size": 32,
    "kv_cache_memory_bytes": 64 << 20, "enforce_eager": True, "dtype": "float32",
}  # fmt: skip


def configuration(model: Path, **changes) -> str:
    """A YAML for a model directory, in small sizes."""
    return yaml.safe_dump({"model": str(model), **SIZES, **changes})


class Gate:
    """The engine's process is stopped where a test waits for a step, and goes on when it opens."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids = pids
        self.waiting = self

    def wait(self, _timeout: float) -> bool:
        """From now on no step is taken."""
        self._signal(signal.SIGSTOP)
        return True

    def allow(self, steps: int = 1) -> None:
        """It cannot be counted from outside: let it run."""

    def open(self) -> None:
        """Let all steps be taken."""
        self._signal(signal.SIGCONT)

    def _signal(self, sign: signal.Signals) -> None:
        for pid in self._pids():
            os.kill(pid, sign)


@dataclass
class Made:
    """Makes engines over what was loaded once."""

    loaded: VllmEngine
    vocab_size: int = field(init=False)

    def __post_init__(self) -> None:
        self.vocab_size = self.loaded.info.vocab_size
        self._shutdown = self.loaded._calls.shutdown
        self.loaded._calls.shutdown = lambda: None  # of the engines that share it

    @property
    def pids(self) -> list[int]:
        """The engine cores: what AsyncLLM has started by itself."""
        return [each.pid for each in multiprocessing.active_children()]

    def engine(self, *, on_death=None, **changes) -> VllmEngine:
        """By the names of Limits, any size may be smaller than what is loaded."""
        known, loaded = self.loaded._sizes, self.loaded
        limits = replace(known.limits, **changes)
        info = replace(known.info, num_blocks=limits.num_blocks, max_running=limits.max_running)
        bounds = Bounds(
            limits.max_running, known.bounds.max_num_tokens, limits.num_blocks, limits.block_size
        )
        sizes = Sizes(info, limits, bounds)
        return VllmEngine(loaded._calls, loaded._writer, sizes, loaded._stats, on_death=on_death)

    def gated(self, steps: int = 0) -> tuple[VllmEngine, Gate]:
        """`steps`: as in tests/support/engines.py; here it begins to stop when it is waited for."""
        return self.engine(), Gate(lambda: self.pids)

    async def heard(self, engine: VllmEngine) -> None:
        """An abort is on its way when it has been asked for."""

    def close(self) -> None:
        """End the processes."""
        self._shutdown()


def made(model: Path, **changes) -> Made:
    """Load a model; takes some ten seconds."""
    return Made(open_vllm(configuration(model, **changes)))
