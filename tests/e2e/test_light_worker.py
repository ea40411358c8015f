"""A worker of OpenVINO's that finds its model lowered starts without torch and transformers."""

import subprocess
import sys

from engines.bundled import penstock_tiny
from tests.support.command import ROOT, clean_environment
from tests.support.openvino import graph_folder, needs_openvino, open_openvino

pytestmark = needs_openvino

# What a worker does from its settings to its first tokens, with what an answer may ask for.
STARTED = """
import asyncio, sys
from pathlib import Path
from engines.api import GenerationRequest, RequestId, Sampling
from gateway.opening import load_engine
from gateway.readiness import warm_up
from gateway.settings import Settings
import gateway.workers.process

ASKED = (
    Sampling(max_tokens=4, temperature=0.0),
    Sampling(max_tokens=4, top_p=0.9, seed=3, logprobs=2, presence=0.5),
    Sampling(max_tokens=4, seed=3, prompt_logprobs=2),
)

async def main():
    settings = Settings(graph_cache_dir=Path(sys.argv[1]), kv_cache_memory=8 << 20, device="cpu")
    loaded = load_engine(settings, lambda _: None, print)
    await loaded.engine.start()
    await warm_up(loaded.engine)
    for n, sampling in enumerate(ASKED):
        request = GenerationRequest(RequestId(f"r{n}"), (5, 6, 7), sampling)
        async for event in loaded.engine.generate(request):
            pass
    await loaded.engine.stop(grace_s=0)

asyncio.run(main())
heavy = {"torch", "transformers", "openvino_telemetry"}
print(sorted(heavy & {name for name, module in sys.modules.items() if module}))
print("openvino" in sys.modules)
"""


def test_a_warm_start_imports_neither_torch_nor_transformers():
    """Not until its first answers either: they cost 3 s and 350 MiB."""
    open_openvino(penstock_tiny())
    run = subprocess.run(
        [sys.executable, "-c", STARTED, str(graph_folder())],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.splitlines() == ["[]", "True"]
