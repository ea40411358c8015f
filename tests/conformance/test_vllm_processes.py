"""A real vLLM in a worker of its own: what it answers, and who is left when one of them dies."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.support.command import ROOT, clean_environment, served
from tests.support.live import TOKENIZER_DIR, chat
from tests.support.vllm_real import configuration

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]

TOKEN = "0123456789abcdef-of-a-test"
_WAIT_S = 30


@pytest.fixture(scope="module", autouse=True)
def _installed():
    """All of it needs vLLM, which is imported in the worker's process alone."""
    reason = "vllm is not installed: make test-vllm, in an environment of its own"
    pytest.importorskip("vllm.version", reason=reason, exc_type=ImportError)


@contextlib.contextmanager
def worker(folder: Path):
    """A worker over the bundled model; (its process, its address)."""
    address, config = f"unix:{folder}/worker", folder / "engine.yaml"
    wanted = configuration(TOKENIZER_DIR, max_model_len=512, penstock={"name": "penstock-tiny"})
    config.write_text(wanted)
    environment = clean_environment(PENSTOCK_WORKER_TOKEN=TOKEN, VLLM_LOGGING_LEVEL="WARNING")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "gateway", "worker", "--engine", "vllm",
                "--engine-config", str(config), "--listen", address, str(TOKENIZER_DIR),
            ],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        while not (line := process.stdout.readline()).startswith("Worker at "):
            assert line, (folder / "log").read_text()
        yield process, address
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate(timeout=_WAIT_S)


def family(process) -> list[psutil.Process]:
    """The processes below a worker."""
    return psutil.Process(process.pid).children(recursive=True)


def named(processes, name: str) -> psutil.Process:
    """The one whose title has this name."""
    (found,) = [each for each in processes if name in " ".join(each.cmdline())]
    return found


def gone(processes) -> list[psutil.Process]:
    """Those that are still there after a while; none, it is hoped."""
    _, alive = psutil.wait_procs(processes, timeout=_WAIT_S)
    return [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


def test_a_gateway_answers_from_vllm(tmp_path):
    """Text, a schema that is held to, and refusals; a drained worker leaves nothing behind."""
    schema = {
        "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
        "additionalProperties": False,
    }  # fmt: skip
    with worker(tmp_path) as (process, address):
        below = family(process)
        with served("--worker", address, command="gateway", PENSTOCK_WORKER_TOKEN=TOKEN) as server:
            asked = {**chat(max_tokens=9), "model": "penstock-tiny", "temperature": 0}
            answer = httpx2.post(f"{server.url}/chat/completions", json=asked, timeout=60).json()
            assert answer["usage"]["completion_tokens"] <= 9
            assert answer["choices"][0]["message"]["content"]
            shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
            held = {**asked, "max_tokens": 60, "response_format": shape}
            answer = httpx2.post(f"{server.url}/chat/completions", json=held, timeout=60).json()
            if answer["choices"][0]["finish_reason"] == "stop":
                assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["n"], int)
            else:
                assert answer["choices"][0]["message"]["content"].lstrip().startswith("{")
        process.send_signal(signal.SIGTERM)
        assert process.wait(_WAIT_S) == 0, (tmp_path / "log").read_text()
        assert gone(below) == []


def test_a_killed_worker_leaves_no_process_of_its_engine(tmp_path):
    """SIGKILL, which no code of its own sees; vLLM's processes do not look for it."""
    with worker(tmp_path) as (process, _):
        below = family(process)
        assert named(below, "EngineCore")
        process.kill()
        assert gone(below) == []


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with an open stream"])
def test_a_worker_ends_with_its_engine(tmp_path, busy):
    """With the exit code that asks for another, and every stream is told."""
    with worker(tmp_path) as (process, address):
        below = family(process)
        with contextlib.ExitStack() as stack:
            lines = iter(())
            if busy:
                server = stack.enter_context(
                    served("--worker", address, command="gateway", PENSTOCK_WORKER_TOKEN=TOKEN)
                )
                asked = {**chat(max_tokens=400), "model": "penstock-tiny", "stream": True}
                more = {"min_tokens": 400, "temperature": 0}
                answer = stack.enter_context(
                    httpx2.stream(
                        "POST", f"{server.url}/chat/completions", json={**asked, **more}, timeout=90
                    )
                )
                lines = answer.iter_lines()
                next(lines)
            os.kill(named(below, "EngineCore").pid, signal.SIGKILL)
            assert process.wait(_WAIT_S) == 70, (tmp_path / "log").read_text()
            assert gone(below) == []
            if busy:
                said = []
                with contextlib.suppress(httpx2.HTTPError):
                    said.extend(lines)
                assert not any("[DONE]" in line for line in said)


def test_a_worker_that_is_ended_while_it_loads_leaves_nothing(tmp_path):
    """Its engine may have been started already."""
    config = tmp_path / "engine.yaml"
    config.write_text(configuration(TOKENIZER_DIR, max_model_len=512))
    process = subprocess.Popen(
        [
            sys.executable, "-m", "gateway", "worker", "--engine", "vllm",
            "--engine-config", str(config), "--listen", f"unix:{tmp_path}/w", str(TOKENIZER_DIR),
        ],
        cwd=ROOT, env=clean_environment(PENSTOCK_WORKER_TOKEN=TOKEN),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline, below = time.monotonic() + 60, []
        while not any("multiprocessing" in " ".join(each.cmdline()) for each in below):
            assert time.monotonic() < deadline
            time.sleep(0.05)
            below = family(process)
        process.terminate()
        assert process.wait(_WAIT_S) == 0
        assert gone(below) == []
    finally:
        process.kill()
        process.communicate(timeout=_WAIT_S)
