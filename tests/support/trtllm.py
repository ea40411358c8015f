"""TensorRT-LLM engines over the stand-in, in the sizes of tests/support/engines.py."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from engines.trtllm.engine import TrtLlmEngine
from engines.trtllm.opening import open_trtllm
from tests.support.engines import Gated
from tests.support.trtllm_standin.package import Recorder

VOCAB = 500


class NoStep:
    """For a gate that stands before something else than steps."""

    def launch(self, plan):
        return None

    def collect(self, ticket):
        return None

    def close(self) -> None:
        return None


def model_directory(path: Path) -> Path:
    """A checkpoint without weights."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"vocab_size": VOCAB, "eos_token_id": 499}))
    return path


def settings(model: Path, **changes) -> dict:
    """The YAML's values; sizes by the names of Limits, or any key of LlmArgs."""
    sizes = {"max_running": 8, "tokens_per_step": 64, "num_blocks": 200, "max_context": 128}
    sizes |= {name: changes.pop(name) for name in list(changes) if name in sizes}
    cache = {"tokens_per_block": 4, "max_tokens": 4 * sizes["num_blocks"]}
    own = {"name": "test", "sampler_applies": ["penalties", "min_p"]}
    return {
        "model": str(model),
        "max_seq_len": sizes["max_context"],
        "max_batch_size": sizes["max_running"],
        "max_num_tokens": sizes["tokens_per_step"],
        **changes,
        "kv_cache_config": {**cache, **changes.get("kv_cache_config", {})},
        "penstock": {**own, **changes.get("penstock", {})},
    }


@dataclass
class Made:
    """Makes engines of one installed version."""

    model: Path
    recorder: Recorder
    vocab_size: int = VOCAB
    block: int = 4

    def engine(self, *, on_death=None, **changes) -> TrtLlmEngine:
        text = yaml.safe_dump(settings(self.model, **changes))
        return open_trtllm(text, on_death=on_death)

    def gated(self, steps: int = 0) -> tuple[TrtLlmEngine, Gated]:
        engine = self.engine()
        gate = self.recorder.simulator.gate = Gated(NoStep(), steps)
        return engine, gate

    async def heard(self, engine: TrtLlmEngine) -> None:
        """Wait until what was aborted has been aborted below."""
        while any(task.cancelling() for task in engine._traffic._tasks):  # noqa: ASYNC110
            await asyncio.sleep(0)
