"""Steps with prompts have rows to spare, memory is touched ahead: nothing of it shows."""

import ctypes
import os
import threading
import time

import numpy as np
import pytest

from tests.support.openvino import INSTALLED, needs_openvino, open_openvino, openvino_runner
from tests.support.plans import Driver, Run
from tests.support.tiny_models import by_name, model_dir, prompts

if INSTALLED:
    from engines.openvino import touching
    from engines.openvino.inputs import padded
    from engines.openvino.touching import TouchAhead, unreal

pytestmark = needs_openvino

MIB = 1 << 20


def driver(seed=0):
    loaded = open_openvino(model_dir(by_name("llama")))
    runner = openvino_runner(loaded, num_blocks=240, max_lanes=32)
    return Driver(runner, num_blocks=240, block_size=32, seed=seed)


@pytest.mark.parametrize(("decodes", "share", "numbers"), [(True, 4, 30), (False, 2, 48)])
def test_there_are_few_numbers_of_rows(decodes, share, numbers):
    """A small share of them is to spare, and never one is too few."""
    upto = 256 if decodes else 2048
    every = {rows: padded(rows, decodes=decodes) for rows in range(1, upto + 1)}
    assert all(rows <= most for rows, most in every.items())
    assert all(most < rows + max(8, rows / share) for rows, most in every.items())
    assert len(set(every.values())) < numbers
    assert all(padded(most, decodes=decodes) == most for most in every.values())


@pytest.mark.parametrize("length", [65, 90, 127, 515, 577, 1025, 2047])
def test_rows_to_spare_change_nothing(length):
    """A prompt in one step with dummies, and in chunks that have none: the same bits."""
    prompt = (prompts(1, longest=60)[0] * 40)[:length]
    whole, parts = driver(), driver(3)
    one = whole.start(0, prompt)
    logits = whole.runner.logits(whole.plan([Run(one, length)]))[0].copy()
    other = parts.start(0, prompt)
    while other.pending > 60:
        parts.step([Run(other, 32)])
    last = parts.runner.logits(parts.plan([Run(other, other.pending)]))[0]
    assert np.array_equal(logits, last)


def test_streams_beside_a_step_with_rows_to_spare_go_on_as_alone():
    """What dummies write is nobody's: greedy streams continue as if there were none."""
    mine, long = prompts(2, longest=40)
    alone, beside = driver(), driver(5)
    first = alone.start(0, mine)
    alone.finish([first], 30)
    same, other = beside.start(0, mine), beside.start(1, (long * 40)[:450])
    beside.step([Run(same, same.pending)])
    while other.pending > 90:
        beside.step([Run(same, 1), Run(other, 88)])
    beside.finish([same, other], 25)
    count = len(same.generated)
    assert count > 20
    assert same.generated == first.generated[:count]


def _real(array) -> int:
    """Bytes of an array that are in memory, by the system's own account."""
    page = os.sysconf("SC_PAGESIZE")
    first = -(-array.ctypes.data // page) * page
    pages = (array.ctypes.data + array.nbytes - first) // page
    there = np.zeros(pages, np.uint8)
    answer = ctypes.CDLL(None).mincore(
        ctypes.c_void_p(first), ctypes.c_size_t(pages * page), ctypes.c_void_p(there.ctypes.data)
    )
    assert answer == 0
    return int((there & 1).sum()) * page


def _until(done, seconds=20.0) -> None:
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, "it was never so"
        time.sleep(0.005)


@pytest.fixture
def caches():
    """Two arrays of 256 blocks, of 64 MiB each, that nobody has touched."""
    if not touching._populate(unreal((MIB,), np.uint8)):
        pytest.skip("this system cannot make memory real ahead")
    return [unreal((256, 256 << 10), np.uint8) for _ in range(2)]


def test_memory_is_real_before_it_is_used_and_no_more_than_that(caches):
    """32 MiB ahead of the highest block: of both arrays the same share, and what is there stays."""
    caches[0][0, :10] = 7
    ahead = TouchAhead(caches, ahead_bytes=32 * MIB)
    ahead.used(7)
    _until(lambda: _real(caches[1]) >= 17 * MIB)
    assert _real(caches[1]) <= 26 * MIB
    assert caches[0][0, :11].tolist() == [7] * 10 + [0]
    ahead.used(100)
    _until(lambda: _real(caches[0]) >= 40 * MIB)
    ahead.used(255)
    _until(lambda: min(map(_real, caches)) >= 63 * MIB)
    ahead.close()
    assert "penstock-touch" not in [thread.name for thread in threading.enumerate()]


def test_touching_ends_when_it_is_closed(caches):
    """Also twice, and before anything was used."""
    ahead = TouchAhead(caches)
    ahead.close()
    ahead.close()
    other = TouchAhead(caches, ahead_bytes=128 * MIB)
    other.used(0)
    other.close()
    assert "penstock-touch" not in [thread.name for thread in threading.enumerate()]
