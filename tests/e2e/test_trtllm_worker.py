"""A TensorRT-LLM worker over the stand-in, behind a real gateway: processes, wire and HTTP."""

import subprocess
import sys
from contextlib import contextmanager

import httpx2
import pytest
import yaml

from tests.support.command import ROOT, clean_environment, served
from tests.support.live import TOKENIZER_DIR, chat
from tests.support.trtllm import settings
from tests.support.trtllm_standin.facts import VERSIONS

TOKEN = "0123456789abcdef-of-a-test"


@contextmanager
def fronted(tmp_path, version, *flags, **changes):
    """A worker of that version, and a gateway of it with these flags."""
    address, config = f"unix:{tmp_path}/worker", tmp_path / "engine.yaml"
    own = {"name": "penstock-tiny", **changes.pop("penstock", {})}
    wanted = settings(TOKENIZER_DIR, max_context=512, penstock=own, **changes)
    config.write_text(yaml.safe_dump(wanted))
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.support.trtllm_worker", address, str(config), version],
        cwd=ROOT, env=clean_environment(PENSTOCK_WORKER_TOKEN=TOKEN),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not worker.stdout.readline().startswith("Worker at "):
            assert worker.poll() is None, worker.stderr.read()
        asked = ("--worker", address, *flags)
        with served(*asked, command="gateway", PENSTOCK_WORKER_TOKEN=TOKEN) as server:
            yield server
    finally:
        worker.terminate()
        _, errors = worker.communicate(timeout=20)
    assert worker.returncode == 0, errors


@pytest.mark.parametrize("version", VERSIONS)
def test_a_gateway_answers_from_tensorrt_llm(tmp_path, version):
    """Its worker opens it from the YAML, and tells the gateway its sizes and its capabilities."""
    with fronted(tmp_path, version) as server:
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


def test_adapters_and_phases_go_from_a_client_to_tensorrt_llm_and_back(tmp_path):
    """Through gateway and wire: a model by its adapter's name, a handoff as trtllm-serve has it."""
    special = {
        "lora_config": {"lora_target_modules": ["attn_q"]},
        "cache_transceiver_config": {"backend": "DEFAULT"},
        "penstock": {"adapters": {"poet": str(tmp_path)}},
    }
    with fronted(tmp_path, VERSIONS[-1], "--engine-extras", **special) as server:

        def said(**fields):
            asked = {"model": "penstock-tiny", "prompt": "One two", "temperature": 0, **fields}
            reply = httpx2.post(f"{server.url}/completions", json={"max_tokens": 9, **asked})
            assert reply.status_code == 200, reply.text
            return reply.json()["choices"][0]

        cards = httpx2.get(f"{server.url}/models").json()["data"]
        assert [(card["id"], card.get("parent")) for card in cards] == [
            ("penstock-tiny", None),
            ("poet", "penstock-tiny"),
        ]
        whole = said()
        assert said(model="poet")["text"] != whole["text"]
        phase = {"request_type": "context_only"}
        told = said(max_tokens=1, disaggregated_params=phase)["disaggregated_params"]
        assert told["encoded_opaque_state"]
        rest = {**told, "request_type": "generation_only"}
        keep = {"token_range_retention_configs": [{"token_start": 0, "priority": 90}]}
        assert said(disaggregated_params=rest, engine_extras={"trtllm.retention": keep}) == whole
        wrong = {"model": "penstock-tiny", "prompt": "a", "engine_extras": {
            "trtllm.retention": {"directory": "/etc"},
        }}  # fmt: skip
        refused = httpx2.post(f"{server.url}/completions", json=wrong)
        assert refused.status_code == 400
        assert "takes no directory" in refused.json()["error"]["message"]


def test_an_engine_that_needs_a_configuration_says_so():
    """One line, before anything is loaded."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "worker", "--engine", "trtllm"],
        cwd=ROOT, env=clean_environment(PENSTOCK_WORKER_TOKEN=TOKEN),
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--engine trtllm needs --engine-config FILE" in done.stdout + done.stderr
