"""No process of an engine outlives its worker, however that ends."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from engines.vllm.guardian import marked
from engines.vllm.orphans import Guard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")

_WAIT_S = 20
# A worker: it starts a process that starts another, tells their ids, and waits to be killed.
_WORKER = """
import subprocess, sys, time
from engines.vllm.orphans import Guard
guard = Guard()
child = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; "
child += "time.sleep(600)']); print(p.pid, flush=True); time.sleep(600)"
p = subprocess.Popen([sys.executable, "-c", child])
print(p.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def environment(monkeypatch):
    """What a guard writes there is taken back."""
    monkeypatch.setenv("ENGINE_OF_PENSTOCK_WORKER", "nobody")


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM], ids=lambda sign: sign.name)
def test_the_processes_of_a_killed_worker_end(sign):
    """Also those that its processes have started."""
    worker = subprocess.Popen([sys.executable, "-c", _WORKER], stdout=subprocess.PIPE, text=True)
    with worker:
        below = [psutil.Process(int(worker.stdout.readline())) for _ in range(2)]
        worker.send_signal(sign)
        worker.wait(_WAIT_S)
        _, alive = psutil.wait_procs(below, timeout=_WAIT_S)
        assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def test_a_guard_that_is_released_ends_what_is_left_and_nothing_else(environment):
    """Others of the same user go on; a second release changes nothing."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    guard = Guard()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as own:
        mark = f"ENGINE_OF_PENSTOCK_WORKER={os.environ['ENGINE_OF_PENSTOCK_WORKER']}"  # noqa: TID251
        assert marked(mark.encode()) == [own.pid]
        guard.release()
        assert own.wait(_WAIT_S) == -signal.SIGKILL
    guard.release()
    assert other.poll() is None
    other.kill()
    other.wait()
