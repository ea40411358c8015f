"""A TensorRT-LLM worker over the stand-in, behind a real gateway: processes, wire and HTTP."""

import subprocess
import sys

import httpx2
import pytest
import yaml

from tests.support.command import ROOT, clean_environment, served
from tests.support.live import TOKENIZER_DIR, chat
from tests.support.trtllm import settings
from tests.support.trtllm_standin.facts import VERSIONS

TOKEN = "0123456789abcdef-of-a-test"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_gateway_answers_from_tensorrt_llm(tmp_path, version):
    """Its worker opens it from the YAML, and tells the gateway its sizes and its capabilities."""
    address, config = f"unix:{tmp_path}/worker", tmp_path / "engine.yaml"
    wanted = settings(TOKENIZER_DIR, max_context=512, penstock={"name": "penstock-tiny"})
    config.write_text(yaml.safe_dump(wanted))
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.support.trtllm_worker", address, str(config), version],
        cwd=ROOT, env=clean_environment(PENSTOCK_WORKER_TOKEN=TOKEN),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not worker.stdout.readline().startswith("Worker at "):
            assert worker.poll() is None, worker.stderr.read()
        with served("--worker", address, command="gateway", PENSTOCK_WORKER_TOKEN=TOKEN) as server:
            asked = {**chat(max_tokens=9), "model": "penstock-tiny"}
            answer = httpx2.post(f"{server.url}/chat/completions", json=asked).json()
            assert answer["usage"]["completion_tokens"] == 9
            assert answer["choices"][0]["finish_reason"] == "length"
            refused = httpx2.post(
                f"{server.url}/completions",
                json={"model": "penstock-tiny", "prompt": "a", "prompt_logprobs": 1},
            )
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] == "prompt_logprobs"
    finally:
        worker.terminate()
        _, errors = worker.communicate(timeout=20)
    assert worker.returncode == 0, errors


def test_an_engine_that_needs_a_configuration_says_so():
    """One line, before anything is loaded."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "worker", "--engine", "trtllm"],
        cwd=ROOT, env=clean_environment(PENSTOCK_WORKER_TOKEN=TOKEN),
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--engine trtllm needs --engine-config FILE" in done.stdout + done.stderr
