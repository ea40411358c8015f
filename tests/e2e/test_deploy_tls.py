"""deploy/tls.sh: certificates with which a real gateway and a real worker find each other."""

import re
import subprocess
import sys
from contextlib import contextmanager

import grpc
import httpx2
import pytest

from tests.support.command import ROOT, body, clean_environment, served
from tests.support.deploy_files import DEPLOY

TOKEN = "a-token-of-this-test"
KEY = "sk-of-this-test"


def make(folder, *names):
    return subprocess.run(
        ["sh", DEPLOY / "tls.sh", folder, *names],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    make(folder, "localhost", "*.penstock-worker.penstock.svc")
    return folder


def files(folder):
    names = {"CERT": "tls.crt", "KEY": "tls.key", "CA": "ca.crt"}
    return {f"PENSTOCK_WORKER_{name}": str(folder / file) for name, file in names.items()}


@contextmanager
def worker(folder):
    """A worker as its container starts it; yields its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "worker", "--engine", "ledger"],
        cwd=ROOT,
        env=clean_environment(
            PENSTOCK_LISTEN="0.0.0.0:0", PENSTOCK_WORKER_TOKEN=TOKEN, **files(folder)
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        for line in process.stdout:
            if found := re.search(r"0\.0\.0\.0:(\d+)", line):
                yield int(found[1])
                break
        else:
            raise AssertionError("the worker has ended")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def address(tls):
    with worker(tls / "worker") as port:
        yield f"localhost:{port}"


def is_let_in(address, folder, *, also=()):
    """Whether a client with these files gets an answer of any kind."""
    read = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(*read), also) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = call.future(b"", timeout=10, metadata=(("authorization", f"Bearer {TOKEN}"),))
        code = answer.code()
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}  # the latter: no handshake
    return code is grpc.StatusCode.OK


def test_a_gateway_serves_over_them(tls, address):
    """The whole way, as two hosts would: TLS on both sides, and one token."""
    environment = {**files(tls / "gateway"), "PENSTOCK_WORKER_TOKEN": TOKEN}
    with served(
        "--worker", address, command="gateway", PENSTOCK_API_KEY=KEY, **environment
    ) as server:
        answer = httpx2.post(
            f"http://127.0.0.1:{server.port}/v1/chat/completions",
            json=body(),
            headers={"authorization": f"Bearer {KEY}"},
            timeout=30,
        )
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 4


def test_only_a_gateways_certificate_opens_a_worker(tls, address, tmp_path):
    """Not a worker's, which has the same CA, and not one of another CA."""
    assert is_let_in(address, tls / "gateway")
    assert not is_let_in(address, tls / "worker")
    make(tmp_path, "localhost")
    stranger = tmp_path / "gateway"
    (stranger / "ca.crt").write_bytes((tls / "gateway" / "ca.crt").read_bytes())
    assert not is_let_in(address, stranger)


def test_a_worker_is_believed_under_its_names_alone(tls, address):
    """One name for all pods of the StatefulSet, and none beside them."""
    for name, known in {
        "penstock-worker-7.penstock-worker.penstock.svc": True,
        "penstock-worker-7.penstock-worker.other.svc": False,
        "a.b.penstock-worker.penstock.svc": False,
    }.items():
        also = (("grpc.ssl_target_name_override", name),)
        assert is_let_in(address, tls / "gateway", also=also) is known, name


def test_what_is_good_is_kept_and_what_is_not_is_made_anew(tmp_path):
    """A start of compose is no new CA; another list of names is."""
    assert make(tmp_path, "worker-1").startswith("made ")
    first = (tmp_path / "worker" / "tls.crt").read_bytes()
    assert make(tmp_path, "worker-1").startswith("kept ")
    assert (tmp_path / "worker" / "tls.crt").read_bytes() == first
    assert make(tmp_path, "worker-1", "worker-2").startswith("made ")
    assert (tmp_path / "worker" / "tls.crt").read_bytes() != first
    for key in tmp_path.rglob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
