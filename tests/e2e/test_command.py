"""The command as an operator runs it: real processes, signals, exit codes, one clear sentence."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import httpx2
import pytest

from engines.bundled import penstock_tiny
from tests.support.command import ROOT, body, clean_environment, served
from tests.support.live import Raw, eventually, live

BUNDLED = (penstock_tiny() / "model.safetensors").exists()
bundled = pytest.mark.skipif(not BUNDLED, reason="no bundled weights here")


def penstock(*arguments, stdin="", timeout=60, **environment):
    """Run to the end."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=ROOT,
        env=clean_environment(**environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def ledger():
    with served("--engine", "ledger") as server:
        yield server


def test_serve_without_flags_needs_no_network_and_no_configuration(ledger):
    """It prints phases, the KV cache, the URL and a command that works."""
    assert "reading tokenizer: " in ledger.output
    assert "KV cache: " in ledger.output
    hint = re.search(r"Try: (curl .*)", ledger._until("(Try: .*)\n"))[1]
    answer = subprocess.run(hint, shell=True, capture_output=True, text=True, check=True)
    assert "data: [DONE]" in answer.stdout


def test_sigterm_on_an_idle_server_is_exit_code_0():
    """Within a second, and quietly."""
    with served("--engine", "ledger") as server:
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 3
        lines = server.process.stderr.read().decode().splitlines()
        assert all(line.startswith("{") for line in lines), "only JSON log lines"


def test_sigint_is_a_drain_too():
    """Ctrl-C ends without a traceback."""
    with served("--engine", "ledger") as server:
        assert server.stop(signal.SIGINT) == 0
        assert "Traceback" not in server.process.stderr.read().decode()


@pytest.mark.parametrize("engine", ["ledger", pytest.param("torch", marks=bundled)])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_loading_gives_the_terminal_back(engine, sign):
    """The bars hide the cursor: it is shown again, and no traceback is left behind."""
    with on_terminal("serve", "--port", "0", "--engine", engine) as (process, screen):
        seen = b""
        while HIDE_CURSOR not in seen:
            seen += os.read(screen, 65536)
        process.send_signal(sign)
        seen += read_to_end(screen)
        assert process.wait(30) == 0
    assert seen.rindex(SHOW_CURSOR) > seen.rindex(HIDE_CURSOR)
    assert b"Traceback" not in seen


HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


@contextmanager
def on_terminal(*arguments):
    """The command with a terminal for its output."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=ROOT,
        env=clean_environment(TERM="xterm"),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        os.close(ours)


def read_to_end(screen):
    got = b""
    with suppress(OSError):  # how a terminal tells its end
        while some := os.read(screen, 65536):
            got += some
    return got


def test_a_second_signal_is_quiet():
    """The stream it cuts is told as cut, in one line, and nothing is reported as a fault."""
    arguments = ("--engine", "ledger", "--drain-timeout-s", "60")
    with served(*arguments) as server, Raw(server.port) as raw:
        raw.send("POST", "/v1/chat/completions", body(stream=True, max_tokens=8000, n=8))
        raw.read_until(b'{"content":"')
        server.process.send_signal(signal.SIGTERM)
        health = f"http://127.0.0.1:{server.port}/readyz"
        eventually(lambda: httpx2.get(health).status_code == 503)
        assert server.stop() == 0
        rest, _ = raw.read_to_end()
        assert b"[DONE]" not in rest
        lines = [json.loads(line) for line in server.process.stderr.read().splitlines()]
    assert {line["level"] for line in lines} == {"info"}
    calls = [line for line in lines if line.get("route") == "/v1/chat/completions"]
    assert [line["outcome"] for line in calls] == ["cut"]


def test_sigterm_lets_a_stream_end():
    """Every token asked for arrives, then the process leaves with 0."""
    with served("--engine", "ledger") as server, Raw(server.port) as raw:
        raw.send(
            "POST", "/v1/chat/completions",
            body(stream=True, max_tokens=1500, stream_options={"include_usage": True}),
        )  # fmt: skip
        got = raw.read_until(b'{"content":"')
        server.process.send_signal(signal.SIGTERM)
        rest, _ = raw.read_to_end()
        assert b'"completion_tokens":1500' in got + rest
        assert b"data: [DONE]" in rest
        assert server.process.wait(20) == 0


def test_sigterm_beyond_the_drain_timeout_cuts_with_an_error():
    """And is still exit code 0."""
    arguments = ("--engine", "ledger", "--drain-timeout-s", "0")
    with served(*arguments) as server, Raw(server.port) as raw:
        raw.send("POST", "/v1/chat/completions", body(stream=True, max_tokens=8000, n=8))
        raw.read_until(b'{"content":"')
        server.process.send_signal(signal.SIGTERM)
        rest, _ = raw.read_to_end()
        assert b'{"error":' in rest
        assert not rest.endswith(b"0\r\n\r\n")
        assert server.process.wait(20) == 0


def test_an_api_key_guards_and_stays_secret():
    """From the environment; a wrong one is 401, the right one answers, no output shows it."""
    key = "sk-very-secret-42"
    with served("--engine", "ledger", PENSTOCK_API_KEY=key) as server:
        assert httpx2.get(f"{server.url}/models").status_code == 401
        headers = {"authorization": f"Bearer {key}"}
        assert httpx2.get(f"{server.url}/models", headers=headers).status_code == 200
        assert server.stop() == 0
        output = server.output + server.process.stderr.read().decode()
        assert key not in output
        assert "$PENSTOCK_API_KEY" in output


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--host", "0.0.0.0"), 2, "without an API key"),
        (("--max-running", "x"), 2, "--max-running: must be a whole number"),
        (("--config", "/none.yaml"), 2, "cannot read /none.yaml"),
        (("--engine", "magic"), 2, "one of auto, torch"),
        (("--host", "192.0.2.1", "--api-key", "k"), 1, "cannot listen on 192.0.2.1:8000"),
    ],
)
def test_a_bad_start_is_one_sentence_and_an_exit_code(arguments, code, told):
    """No traceback, in well under a second."""
    began = time.monotonic()
    run = penstock("serve", *arguments)
    assert run.returncode == code
    assert told in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert time.monotonic() - began < 2


def test_a_taken_port_is_told_at_once():
    """Before anything is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        run = penstock("serve", "--port", str(holder.getsockname()[1]))
    assert run.returncode == 1
    assert "cannot listen" in run.stderr
    assert "Address already in use" in run.stderr


def test_an_unknown_variable_is_refused_with_a_hint():
    """A typo is not a default."""
    run = penstock("serve", PENSTOCK_MAX_RUNING="3")
    assert run.returncode == 2
    assert "did you mean max_running?" in run.stderr


@pytest.mark.parametrize("engine", ["auto", "ledger", "torch"])
def test_an_empty_model_directory_is_rejected(tmp_path, engine):
    """It listens, finds nothing to serve, says so, and ends."""
    run = penstock("serve", str(tmp_path), "--port", "0", "--engine", engine)
    assert run.returncode == 1
    assert "penstock: cannot serve: " in run.stdout
    assert str(tmp_path) in run.stdout
    assert "Traceback" not in run.stderr


def test_a_context_beyond_the_models_own_is_rejected():
    """A setting is followed or refused."""
    run = penstock("serve", "--port", "0", "--engine", "ledger", "--max-context", "1000000")
    assert run.returncode == 1
    assert "--max-context 1000000 is more than" in run.stdout


def test_check_describes_a_model_directory(tmp_path):
    """Facts of a good one, the reason for a bad one."""
    bad = penstock("check", str(tmp_path))
    assert bad.returncode == 1
    assert len(bad.stderr.strip().splitlines()) == 1
    if BUNDLED:
        good = penstock("check")
        assert good.returncode == 0, good.stderr
        assert re.search(r"servable +yes", good.stdout)
        assert "LlamaForCausalLM" in good.stdout


def test_chat_streams_a_conversation():
    """Two turns, a new start, and /exit, against any base URL."""
    with live() as server:
        run = penstock(
            "chat", "--base-url", server.url, stdin="Hello\n\nand again\n/new\nHi\n/exit\n"
        )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("you>") == 6
    assert len(run.stdout) > 60


def test_chat_says_what_is_wrong():
    """No server, no key, no such model: a sentence each."""
    nobody = penstock("chat", "--base-url", "http://127.0.0.1:9/v1")
    assert nobody.returncode == 1
    assert "cannot reach" in nobody.stderr
    with live() as server:
        run = penstock("chat", "--base-url", server.url, "--model", "nope", stdin="Hi\n")
    assert "404" in run.stdout


def cpu_seconds(*arguments):
    """What a run costs, whatever else the machine does meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert penstock(*arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_version_and_help_are_quick_and_light():
    """Help costs under 0.3 s, and nothing heavy is imported for it."""
    assert re.fullmatch(r"penstock \d+\.\d+\.\d+\n", penstock("--version").stdout)
    assert "serve" in penstock("--help").stdout
    assert min(cpu_seconds("--help") for _ in range(3)) < 0.3
    heavy = {"torch", "transformers", "fastapi", "uvicorn", "pydantic", "httpx2", "numpy"}
    code = f"import sys, gateway.cli; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert run.stdout.decode().strip() == "[]"


@pytest.mark.parametrize("entry", ["serve", "front"])
def test_the_gateway_itself_imports_no_torch(entry):
    """Only a process that computes does: all that a gateway imports, even when it is used."""
    code = (
        f"import sys; from gateway.serve import {entry};"
        "import gateway.config, gateway.listener, gateway.cli;"
        "from engines.bundled import penstock_tiny;"
        "from gateway.model_directory import read_text_side; read_text_side(penstock_tiny());"
        "heavy = {'torch', 'transformers', 'tensorrt_llm', 'gateway.opening'};"
        "print(heavy & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert run.stdout.decode().strip() == "set()"


def network_namespaces():
    """Whether this machine lets us make one."""
    try:
        return subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0
    except FileNotFoundError:
        return False


@bundled
def test_the_bundled_model_answers_within_ten_seconds_without_a_network():
    """From the command to the first token on a client's socket, with nothing but loopback.

    What needs the network fails there outright. The ten seconds are asserted on a machine with a
    core to spare; on a busier one the figure is printed, and bounded by a minute.
    """
    if not network_namespaces():
        pytest.skip("this machine does not permit `unshare --net`")
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    run = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.support.first_token"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    took_s = float(run.stdout)
    print(f"penstock serve to first token: {took_s:.2f} s at load {load:.1f}")  # noqa: T201
    assert took_s < (10 if load <= cores - 1 else 60)
