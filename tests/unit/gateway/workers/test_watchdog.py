"""An engine that hangs is told from one that is idle, slow or busy."""

import subprocess
import sys

import pytest

from engines.api import EngineLoad
from gateway.workers.watchdog import EXIT_STUCK, Heartbeat


def load(steps, running=0, waiting=0):
    return EngineLoad(running, waiting, 0, 0, 0, steps=steps)


@pytest.mark.parametrize(
    ("looks", "stuck"),
    [
        ([(0, load(5)), (100, load(5))], False),
        ([(0, load(5, 1)), (9, load(5, 1)), (10, load(5, 1))], True),
        ([(0, load(5, 0, 1)), (10, load(5, 0, 1))], True),
        ([(0, load(5, 1)), (9, load(6, 1)), (18, load(7, 1))], False),
        ([(0, load(5, 1)), (9, load(5)), (18, load(5, 1))], False),
        ([(0, load(5, 1)), (9, load(5)), (18, load(5, 1)), (19, load(5, 1))], True),
    ],
    ids=["idle", "hangs", "waits", "slow", "ended-meanwhile", "hangs-after-rest"],
)
def test_stuck_is_work_without_a_step(looks, stuck):
    """For the whole timeout; rest and steps begin it anew."""
    heartbeat = Heartbeat(10)
    assert [heartbeat.is_stuck(at, now) for now, at in looks][-1] == stuck


HANGS = """
import threading, time
from engines.api import EngineLoad
from gateway.workers.watchdog import watch

def stand_still_here():
    {}

watch(lambda: EngineLoad(1, 0, 0, 0, 0), 0.3)
stand_still_here()
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("threading.Event().wait()", EXIT_STUCK),
        ("import ctypes; ctypes.PyDLL(None).sleep(30)", 1),
    ],
    ids=["waits", "holds-the-lock"],
)
def test_a_stuck_process_ends_and_says_where(how, code):
    """Also where native code never gives the interpreter lock back."""
    run = subprocess.run(
        [sys.executable, "-c", HANGS.format(how)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert run.returncode == code
    assert "in stand_still_here" in run.stderr
