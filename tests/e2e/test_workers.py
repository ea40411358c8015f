"""Engines in processes of their own: what a client sees when they die, hang, or are replaced."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.support.command import ROOT, body, clean_environment, served
from tests.support.live import Raw, eventually

TOKEN = "0123456789abcdef-of-a-test"
LONG = 6000


def workers_of(server):
    """The live worker processes of a server, by their sockets' names."""
    children = psutil.Process(server.process.pid).children()
    return {name: child for child in children if (name := listens(child)) is not None}


def listens(process):
    try:
        flags = [word for word in process.cmdline() if word.startswith("--listen=")]
    except psutil.Error:
        return None
    return flags[0].rpartition("/")[2] if flags and "worker" in flags[0] else None


def ready(server):
    answer = httpx2.get(f"http://127.0.0.1:{server.port}/readyz")
    return answer.status_code, answer.json()


def all_up(server, count):
    return lambda: ready(server) == (
        200, {"status": "ready", "phase": f"{count} of {count} workers up"},
    )  # fmt: skip


def metric(server, name):
    text = httpx2.get(f"http://127.0.0.1:{server.port}/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def streamed(server, number=0, max_tokens=LONG, begun=None):
    """One chat's text, its finish and its usage, as a client folds them.

    Its number is put into the set `begun` when its first text is there.
    """
    asked = body(
        messages=[{"role": "user", "content": f"Question {number}"}], temperature=0,
        stream=True, max_tokens=max_tokens, stream_options={"include_usage": True},
    )  # fmt: skip
    text, finish, usage = [], None, None
    url = f"{server.url}/chat/completions"
    with httpx2.stream("POST", url, json=asked, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text.append(choice["delta"].get("content") or "")
                if text[-1] and begun is not None:
                    begun.add(number)
                finish = choice["finish_reason"] or finish
    return "".join(text), finish, usage["completion_tokens"]


def in_the_middle(server, clients):
    """Four streams, of which each has begun."""
    begun = set()
    running = [clients.submit(streamed, server, number, begun=begun) for number in range(4)]
    eventually(lambda: len(begun) == 4)
    return running


@contextmanager
def fleet(replicas=1, *more, **environment):
    arguments = ("--engine", "ledger", "--replicas", str(replicas), *more)
    with served(*arguments, **environment) as server:
        eventually(all_up(server, replicas), 30, "all workers up")
        yield server


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_killed_worker_is_no_fault_for_a_client(replicas):
    """The stream completes, equal to the undisturbed one, and a worker comes in its place."""
    with fleet(replicas) as server, ThreadPoolExecutor(8) as clients:
        undisturbed = [streamed(server, number) for number in range(4)]
        before = workers_of(server)
        running = in_the_middle(server, clients)
        for worker in before.values():
            worker.kill()
            break
        assert [each.result() for each in running] == undisturbed
        eventually(all_up(server, replicas), 30, "the worker is back")
        assert len(set(workers_of(server)) - set(before)) == 1
        assert metric(server, "penstock_migrations_total") >= 1
        assert metric(server, "penstock_worker_restarts_total") == 1
        assert metric(server, "penstock_replicas_up") == replicas
        assert server.stop() == 0


def test_workers_that_are_replaced_one_by_one_fail_nobody():
    """Three of them, each told to end while streams run on all."""
    with fleet(3) as server, ThreadPoolExecutor(8) as clients:
        over, outcomes = threading.Event(), []

        def keep_asking(number):
            while not over.is_set():
                outcomes.append(streamed(server, number, 400)[1:])

        asking = [clients.submit(keep_asking, number) for number in range(6)]
        for worker in workers_of(server).values():
            worker.terminate()
            eventually(lambda worker=worker: not worker.is_running(), 30, "it ends")
            eventually(all_up(server, 3), 30, "the next is up")
        over.set()
        for each in asking:
            each.result()
        assert set(outcomes) == {("length", 400)}
        assert metric(server, "penstock_worker_restarts_total") == 3


def test_no_worker_at_all_is_told_with_a_time():
    """503 no_worker until one is back, on the probe too."""
    with fleet(1) as server:
        (worker,) = workers_of(server).values()
        worker.suspend()  # the next takes its name only when this one is gone
        worker.kill()
        answer = eventually(
            lambda: (
                (got := httpx2.post(f"{server.url}/chat/completions", json=body())).status_code
                == 503 and got
            )
        )  # fmt: skip
        assert answer.json()["error"]["code"] in {"no_worker", "engine_unavailable"}
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-should-retry"] == "true"
        eventually(all_up(server, 1), 30, "the worker is back")
        assert httpx2.post(f"{server.url}/chat/completions", json=body()).status_code == 200


def test_workers_do_not_outlive_a_gateway_that_is_killed():
    """They are gone within two seconds."""
    with fleet(2) as server:
        workers = list(workers_of(server).values())
        server.process.kill()
        assert not psutil.wait_procs(workers, timeout=2)[1]


def test_a_gateway_that_is_told_to_end_takes_its_workers_and_sockets_along():
    """Nothing is left of them when it has ended."""
    with fleet(2) as server:
        workers = list(workers_of(server).values())
        flag = next(word for word in workers[0].cmdline() if word.startswith("--listen="))
        folder = Path(flag.partition("unix:")[2]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert server.stop() == 0
        assert not any(worker.is_running() for worker in workers)
        assert not folder.exists()


def test_a_model_that_cannot_be_served_is_one_line_and_exit_1(tmp_path):
    """Whoever refuses it, gateway or worker."""
    (tmp_path / "model").mkdir()
    run = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", str(tmp_path / "model"), "--port", "0",
         "--engine", "ledger", "--replicas", "3"],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stdout.count("penstock: cannot serve: ") == 1
    assert "Traceback" not in run.stderr


def test_random_bytes_on_a_workers_socket_change_nothing():
    """Nor does a caller without the token."""
    with fleet(1) as server:
        (worker,) = workers_of(server).values()
        flag = next(word for word in worker.cmdline() if word.startswith("--listen="))
        for size in (1, 100, 100_000):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(flag.partition("unix:")[2])
                stranger.settimeout(5)
                try:
                    stranger.sendall(os.urandom(size))
                    while stranger.recv(65536):
                        pass
                except OSError:
                    continue  # it hung up, as it may
        assert streamed(server, max_tokens=50)[1:] == ("length", 50)
        assert metric(server, "penstock_worker_restarts_total") == 0
        assert workers_of(server).popitem()[1].pid == worker.pid


def test_a_stopped_worker_is_replaced():
    """One that does not answer is as good as dead: streams go on elsewhere within seconds."""
    with fleet(2) as server, ThreadPoolExecutor(4) as clients:
        undisturbed = [streamed(server, number) for number in range(4)]
        running = in_the_middle(server, clients)
        (_, worker), *_ = workers_of(server).items()
        worker.suspend()
        try:
            assert [each.result(60) for each in running] == undisturbed
            eventually(lambda: not worker.is_running(), 30, "it is killed")
        finally:
            if worker.is_running():
                worker.kill()
        eventually(all_up(server, 2), 30, "the next is up")


def command(name, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", name, *arguments],
        cwd=ROOT, env=clean_environment(**environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@contextmanager
def worker_at(address, *arguments, token=TOKEN):
    arguments = ("--engine", "ledger", "--listen", address, *arguments)
    process = command("worker", *arguments, PENSTOCK_WORKER_TOKEN=token)
    try:
        for line in process.stdout:
            if line.startswith("Worker at "):
                break
        else:
            pytest.fail(process.stderr.read())
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


@contextmanager
def fronted(*addresses, token=TOKEN, flags=()):
    with served(
        *flags,
        *(flag for address in addresses for flag in ("--worker", address)),
        command="gateway",
        PENSTOCK_WORKER_TOKEN=token,
    ) as server:
        yield server


def test_a_gateway_fronts_workers_that_come_and_go(tmp_path):
    """It waits for the first, goes on with the second, and finds the first when it is back."""
    one, two = f"unix:{tmp_path}/one", f"unix:{tmp_path}/two"
    with worker_at(one) as first, fronted(one, two) as server:
        eventually(lambda: ready(server)[1]["phase"] == "1 of 2 workers up")
        undisturbed = streamed(server)
        with ThreadPoolExecutor(1) as client, worker_at(two):
            eventually(all_up(server, 2), 40, "the second is found")
            first.terminate()  # drains
            assert client.submit(streamed, server).result() == undisturbed
            assert first.wait(20) == 0
            with worker_at(one):
                eventually(all_up(server, 2), 40, "the first is found again")
        assert server.stop() == 0


def test_a_wrong_token_is_refused(tmp_path):
    """The gateway waits for a worker that takes it, and says why in its log."""
    address = f"unix:{tmp_path}/w"
    arguments = ("--port", "0", "--worker", address)
    with worker_at(address):
        gateway = command("gateway", *arguments, PENSTOCK_WORKER_TOKEN="another-secret-of-this")
        try:
            for line in gateway.stderr:
                if "UNAUTHENTICATED" in line:
                    break
            assert gateway.poll() is None
            gateway.terminate()
            out, err = gateway.communicate(timeout=20)
            assert gateway.returncode == 0
            assert "another-secret" not in out + err
        finally:
            gateway.kill()


def test_a_worker_of_another_model_is_refused(tmp_path):
    """At the start, in a sentence that names both."""
    address = f"unix:{tmp_path}/w"
    with worker_at(address, "--served-model-name", "other"):
        gateway = command(
            "gateway", "--port", "0", "--worker", address, PENSTOCK_WORKER_TOKEN=TOKEN
        )
        out, _ = gateway.communicate(timeout=30)
    assert gateway.returncode == 1
    assert "serves 'other', and this gateway 'penstock-tiny'" in out


def test_a_worker_drains_on_sigterm_and_takes_nothing_new(tmp_path):
    """What runs ends on it, within its timeout; then it leaves with 0."""
    address = f"unix:{tmp_path}/w"
    with worker_at(address) as worker, fronted(address) as server, Raw(server.port) as raw:
        asked = body(stream=True, max_tokens=LONG, stream_options={"include_usage": True})
        raw.send("POST", "/v1/chat/completions", asked)
        got = raw.read_until(b'{"content":"')
        worker.send_signal(signal.SIGTERM)
        assert b'"completion_tokens":%d' % LONG in got + raw.read_until(b"data: [DONE]")
        assert worker.wait(20) == 0


def test_a_worker_has_no_secret_on_its_command_line():
    """Nor the keys of the gateway in its environment."""
    with fleet(1, PENSTOCK_API_KEY="sk-of-a-client") as server:
        (worker,) = workers_of(server).values()
        token = worker.environ()["PENSTOCK_WORKER_TOKEN"]
        assert len(token) >= 32
        assert token not in " ".join(worker.cmdline())
        assert not [name for name in worker.environ() if name == "PENSTOCK_API_KEY"]
        assert server.stop() == 0
        output = server.output + server.process.stderr.read().decode()
        assert token not in output


def test_time_does_not_stand_still_for_a_restart():
    """A crashed worker of the ledger is back within seconds."""
    with fleet(1) as server:
        (worker,) = workers_of(server).values()
        began = time.monotonic()
        worker.kill()
        eventually(lambda: ready(server)[0] == 503, 10, "it is noticed")
        eventually(all_up(server, 1), 30, "it is back")
        print(f"worker back after {time.monotonic() - began:.2f} s")  # noqa: T201
