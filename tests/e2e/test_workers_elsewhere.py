"""A gateway and a worker that are on different machines: mutual TLS, over a network."""

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.test_workers import TOKEN, all_up, command, ready, streamed
from tests.support.certificates import Authority
from tests.support.command import ROOT, clean_environment, served
from tests.support.live import eventually


def flags(authority, name, *addresses):
    certificate, key = authority.issue(name, *addresses)
    return (
        "--worker-cert", str(certificate), "--worker-key", str(key),
        "--worker-ca", str(authority.certificate),
    )  # fmt: skip


@contextlib.contextmanager
def worker_on(address, *arguments, before=()):
    process = subprocess.Popen(
        [*before, sys.executable, "-m", "gateway", "worker", "--engine", "ledger",
         "--listen", address, *arguments],
        cwd=ROOT, env=clean_environment(PENSTOCK_WORKER_TOKEN=TOKEN),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if line.startswith("Worker at "):
                break
        else:
            pytest.fail(process.stderr.read())
        yield line.split()[2]
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture(name="authority")
def made_authority(tmp_path):
    return Authority(tmp_path / "ca")


def test_both_sides_show_certificates(authority):
    """A stream over TLS equals one over a socket file of the same machine."""
    theirs = flags(authority, "worker", "IP:127.0.0.1")
    ours = flags(authority, "gateway", "DNS:gateway")
    with worker_on("127.0.0.1:0", *theirs) as address:
        arguments = ("--worker", address, *ours)
        with served(*arguments, command="gateway", PENSTOCK_WORKER_TOKEN=TOKEN) as far:
            eventually(all_up(far, 1), 30, "the worker is found")
            told = streamed(far, max_tokens=300)
    with served("--engine", "ledger") as near:
        assert streamed(near, max_tokens=300) == told


def test_who_cannot_show_the_right_one_is_not_talked_to(authority, tmp_path):
    """Whichever side it is; the gateway waits, and is not ready."""
    other = Authority(tmp_path / "other")
    faults = ("another authority", "another address", "none")
    with ThreadPoolExecutor(3) as pool:  # each waits for ten seconds
        list(pool.map(lambda fault: _refused(authority, other, fault), faults))


def _refused(authority, other, fault):
    addresses = "IP:127.0.0.2" if fault == "another address" else "IP:127.0.0.1"
    theirs = flags(authority, f"worker of {fault}", addresses)
    signs = other if fault == "another authority" else authority
    ours = flags(signs, f"gateway of {fault}", "DNS:gateway")
    with worker_on("127.0.0.1:0", *theirs) as address:
        gateway = command(
            "gateway", "--port", "0", "--worker", address, *(ours if fault != "none" else ()),
            PENSTOCK_WORKER_TOKEN=TOKEN,
        )  # fmt: skip
        try:
            for line in gateway.stderr:
                if "does not answer: UNAVAILABLE" in line or "DEADLINE_EXCEEDED" in line:
                    break
            else:
                pytest.fail("it has ended")
            assert gateway.poll() is None
        finally:
            gateway.kill()
            gateway.communicate(timeout=10)


@contextlib.contextmanager
def other_machine():
    """A network namespace with a cable to this one: its name, and its address."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making a network namespace needs root and the ip command")
    name = f"ps{uuid.uuid4().hex[:8]}"
    link = f"{name}a", f"{name}b"
    steps = (
        f"netns add {name}",
        f"link add {link[0]} type veth peer name {link[1]} netns {name}",
        f"addr add 10.213.77.1/30 dev {link[0]}",
        f"link set {link[0]} up",
        f"-n {name} addr add 10.213.77.2/30 dev {link[1]}",
        f"-n {name} link set {link[1]} up",
        f"-n {name} link set lo up",
    )
    try:
        for step in steps:
            done = subprocess.run(
                ["ip", *step.split()], check=False, capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f"a network namespace cannot be made here: {done.stderr.strip()}")
        yield name, "10.213.77.2", link[0]
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_a_cut_cable_moves_streams_to_the_machine_that_is_left(authority):
    """A worker in another network namespace goes silent: its streams go on here, in seconds."""
    ours = flags(authority, "gateway", "DNS:gateway")
    here = flags(authority, "here", "IP:127.0.0.1")
    with other_machine() as (name, far, cable), worker_on("127.0.0.1:0", *here) as near:
        there = flags(authority, "there", f"IP:{far}")
        inside = ("ip", "netns", "exec", name)
        with worker_on(f"{far}:8010", *there, before=inside) as distant:
            arguments = ("--worker", near, "--worker", distant, "--routing", "least-loaded", *ours)
            with served(*arguments, command="gateway", PENSTOCK_WORKER_TOKEN=TOKEN) as server:
                eventually(all_up(server, 2), 30, "both are found")
                undisturbed = [streamed(server, number) for number in range(2)]
                moved = _streams_through_a_cut(server, cable)
                assert moved == undisturbed
                assert ready(server)[1]["phase"] == "1 of 2 workers up"


def _streams_through_a_cut(server, cable):
    begun = set()
    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(streamed, server, number, begun=begun) for number in range(2)]
        eventually(lambda: len(begun) == 2)
        subprocess.run(["ip", "link", "set", cable, "down"], check=True)
        return [each.result(60) for each in running]
