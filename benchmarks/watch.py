"""What a server costs while it is used: processor time and memory of all its processes.

And what others on the machine took meanwhile, by which a figure is known to be disturbed.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil


@dataclass
class Cost:
    """What passed between the beginning and the end of a block."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    rss_mib: float = 0.0  # at the end; a page that two processes share counts twice
    pss_mib: float = 0.0  # and here once
    others: float = 0.0  # share of all processors that neither server nor client had


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Of a process and all below it, those included that it has waited for."""
    total = 0.0
    for one in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident and proportional size of a process and all below it."""
    rss = pss = 0
    for one in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes = one.memory_full_info()
            rss, pss = rss + sizes.rss, pss + sizes.pss
    return rss / 2**20, pss / 2**20


def busy_seconds() -> float:
    """Processor time that the machine has spent, and that its host has taken, on anything."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal


def own_seconds() -> float:
    """Processor time of this process."""
    times = os.times()
    return times.user + times.system


@contextlib.contextmanager
def watched(pid: int | None) -> Iterator[Cost]:
    """Fills a cost when the block ends. Without a process: of the machine and of this one alone."""
    cost = Cost()
    begun, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    used = 0.0 if pid is None else cpu_seconds(pid)
    yield cost
    cost.wall_s = time.perf_counter() - begun
    cost.client_cpu_s = own_seconds() - own
    cost.cpu_s = 0.0 if pid is None else cpu_seconds(pid) - used
    foreign = busy_seconds() - busy - cost.client_cpu_s - cost.cpu_s
    cost.others = max(foreign, 0.0) / (cost.wall_s * (os.cpu_count() or 1))
    if pid is not None:
        cost.rss_mib, cost.pss_mib = memory_mib(pid)


def wait_quiet(share: float, at_most_s: float = 120.0) -> bool:
    """Until others take less than a share of the machine for 0.3 s; False: they never did."""
    ends = time.perf_counter() + at_most_s
    while time.perf_counter() < ends:
        with watched(None) as cost:
            time.sleep(0.3)
        if cost.others < share:
            return True
    return False
