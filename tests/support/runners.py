"""The runners that compute models, as tests make them: each opens a model, and steps it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.step import StepRunner
from engines.torch import loading as torch_loading
from engines.torch.families import ModelFacts
from engines.torch.runner import TorchRunner
from tests.support.openvino import open_openvino, openvino_runner


@dataclass(frozen=True)
class RunnerKind:
    """One kind of runner, and the smallest block it can have."""

    name: str
    block: int
    load: Callable[[Path], Any]
    make: Callable[..., StepRunner]

    def facts(self, loaded: Any) -> ModelFacts:
        return loaded.facts


def _open_torch(path: Path) -> torch_loading.LoadedModel:
    return torch_loading.open_model(path, dtype="float32", device="cpu")


def _torch_runner(loaded: Any, *, num_blocks: int, max_lanes: int, **more: Any) -> TorchRunner:
    return TorchRunner(loaded, num_blocks=num_blocks, block_size=8, max_lanes=max_lanes, **more)


TORCH = RunnerKind("torch", 8, _open_torch, _torch_runner)
OPENVINO = RunnerKind("openvino", 32, open_openvino, openvino_runner)
