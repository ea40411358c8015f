"""Measures whether a server's event loop stood still, less what a busy machine did to it."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

TICK_S = 0.005
_THREADS = Path("/proc/self/task")
# A process that only sleeps: what delays it delays everyone, and is no fault of the server's.
_CONTROL = f"""
import sys, threading, time
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
last = time.monotonic()
print("ready", flush=True)
while not stop.is_set():
    time.sleep({TICK_S})
    now = time.monotonic()
    if now - last > 0.01:
        print(last, now)
    last = now
"""


class Stall:
    """The longest stand-still of the watched block, in seconds, less the machine's own."""

    seconds = 0.0


@contextmanager
def watched(loop):
    """Watch `loop`, which runs in another thread; the Stall is filled in at the end."""
    stall, gaps = Stall(), []
    control = subprocess.Popen(
        [sys.executable, "-c", _CONTROL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert control.stdout.readline() == "ready\n"
    ticking = threading.Event()
    probe = asyncio.run_coroutine_threadsafe(_tick(gaps, ticking), loop)
    try:
        assert ticking.wait(10)
        yield stall
        ticking.clear()
        assert ticking.wait(10)  # a stand-still that goes on is told by the tick after it
    finally:
        probe.cancel()
        delays = control.communicate("")[0].splitlines()
        stall.seconds = _longest(gaps, [tuple(map(float, delay.split())) for delay in delays])


async def _tick(gaps, ticking):
    last, waited_s = monotonic(), _waited_s()
    while True:
        await asyncio.sleep(TICK_S)
        now, waited_now_s = monotonic(), _waited_s()
        gaps.append((last, now, waited_now_s - waited_s))
        last, waited_s = now, waited_now_s
        ticking.set()


def _waited_s():
    """For how long the threads of this process could have run and got no core, where Linux tells.

    All of them: one that waits for a core may hold the interpreter's lock.
    """
    waited_ns = 0
    for thread in _THREADS.iterdir() if _THREADS.exists() else ():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            waited_ns += int((thread / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


def _longest(gaps, machine):
    def excess(began, ended, waited_s):
        delays = [b - a for a, b in machine if a < ended and b > began]
        return ended - began - max(waited_s, *delays, 0.0)

    return max((excess(*gap) for gap in gaps), default=0.0)


def assert_never_stalls(loop, attack, *, limit_s=0.05, tries=4):
    """Run `attack` until the loop was not held up by it: a fault of ours returns every time."""
    seen = []
    for _ in range(tries):
        with watched(loop) as stall:
            attack()
        seen.append(stall.seconds)
        if stall.seconds <= limit_s:
            return
    raise AssertionError(f"the loop stood still for {seen} s, in each of {tries} tries")
