"""vLLM engines over the stand-in, in the sizes of tests/support/engines.py."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from engines.vllm.engine import VllmEngine
from engines.vllm.opening import open_vllm
from tests.support.engines import Gated
from tests.support.vllm_standin import VOCAB, Recorder

END = 499  # the model's end token
_NAMES = {
    "max_running": "max_num_seqs", "tokens_per_step": "max_num_batched_tokens",
    "max_context": "max_model_len", "num_blocks": "num_gpu_blocks_override",
}  # fmt: skip


class _NoStep:
    def launch(self, plan):
        return None

    def collect(self, ticket):
        return None

    def close(self) -> None:
        return None


def model_directory(path: Path, *, tokenizer: bool = False) -> Path:
    """A checkpoint without weights."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"vocab_size": VOCAB, "eos_token_id": END}))
    if tokenizer:
        (path / "tokenizer.json").write_text("{}")
    return path


@dataclass
class Made:
    """Makes engines of the stand-in."""

    model: Path
    recorder: Recorder
    vocab_size: int = VOCAB
    block: int = 4

    def engine(self, *, on_death=None, **changes) -> VllmEngine:
        sizes = {"max_running": 8, "tokens_per_step": 64, "num_blocks": 200, "max_context": 128}
        sizes |= {name: changes.pop(name) for name in list(changes) if name in sizes}
        sizes["num_blocks"] += 1  # the one that vLLM keeps
        given = {_NAMES[name]: value for name, value in sizes.items()}
        text = yaml.safe_dump({"model": str(self.model), "block_size": 4, **given, **changes})
        return open_vllm(text, on_death=on_death)

    def gated(self, steps: int = 0) -> tuple[VllmEngine, Gated]:
        engine = self.engine()
        gate = self.recorder.simulator.gate = Gated(_NoStep(), steps)
        return engine, gate

    async def heard(self, engine: VllmEngine) -> None:
        """Wait until what was aborted has been aborted below."""
        while any(task.cancelling() for task in engine._traffic._tasks):  # noqa: ASYNC110
            await asyncio.sleep(0)
