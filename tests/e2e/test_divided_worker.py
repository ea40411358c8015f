"""A worker that computes its model in two processes: what a client sees of it, and how it ends."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from engines.bundled import penstock_tiny
from tests.support.command import ROOT, clean_environment, served
from tests.support.live import eventually
from tests.support.tiny_models import Tiny, model_dir

pytestmark = pytest.mark.slow  # torch is imported by each of five processes

MODEL = Tiny("divided-llama", "llama", {"vocab_size": 2560, "max_position_embeddings": 2048})
ASKED = {
    "model": "tiny", "prompt": "The gate opens", "temperature": 0, "max_tokens": 400,
    "ignore_eos": True, "stream": True,
}  # fmt: skip
FLAGS = ("--device", "cpu", "--dtype", "float32", "--served-model-name", "tiny", "--memory", "3G")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A small random model that speaks the bundled model's tokens."""
    path = tmp_path_factory.mktemp("divided")
    shutil.copytree(model_dir(MODEL), path, dirs_exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(penstock_tiny() / name, path)
    return str(path)


def parts_of(server):
    """The processes of a server that compute parts, by their command."""
    below = psutil.Process(server.process.pid).children(recursive=True)
    return [each for each in below if is_part(each)]


def is_part(process):
    try:
        return "engines.torch.parallel.rank_process" in process.cmdline()
    except psutil.Error:
        return False


def streamed(server, begun=()):
    """A completion's text, put together; `begun` hears of its first."""
    text = []
    with httpx2.stream("POST", f"{server.url}/completions", json=ASKED, timeout=120) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, event
                text += [choice["text"] for choice in event["choices"]]
                for told in begun:
                    told.append(line)
    return "".join(text)


def test_a_part_that_dies_is_no_fault_for_a_client(directory):
    """The text of one process; and of two, of which one is killed in the middle of it."""
    with served(directory, *FLAGS, "--engine", "torch") as server:
        whole = streamed(server)
    with (
        served(directory, *FLAGS, "--tensor-parallel", "2") as server,
        ThreadPoolExecutor(1) as client,
    ):
        (part,) = parts_of(server)
        begun = []
        running = client.submit(streamed, server, [begun])
        eventually(lambda: begun, 60, "it has begun")
        part.kill()
        assert running.result() == whole
        (other,) = parts_of(server)
        assert other.pid != part.pid
        server.process.kill()
        assert not psutil.wait_procs([other], timeout=10)[1]


def test_a_server_that_is_told_to_end_takes_all_parts_along(directory):
    """Nothing is left of them when it has ended."""
    with served(directory, *FLAGS, "--tensor-parallel", "2") as server:
        parts = parts_of(server)
        assert server.stop() == 0
        assert not psutil.wait_procs(parts, timeout=10)[1]
        assert len(parts) == 1


@pytest.mark.parametrize("command", ["plan", "serve"])
def test_a_model_that_cannot_be_divided_is_refused_by_both(command):
    """The bundled one has five KV heads."""
    port = () if command == "plan" else ("--port", "0")
    run = subprocess.run(
        [sys.executable, "-m", "gateway", command, "--tensor-parallel", "2", "--memory", "3G",
         *port],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "--tensor-parallel 2: 5 KV heads cannot be shared by 2" in run.stdout + run.stderr
