"""A worker process from its parent's side: phases, readiness, refusals, ends."""

import asyncio
import re

import psutil
import pytest

from gateway.config import worker_environment
from gateway.workers.child import WorkerChild, WorkerFailed

TOKEN = "0123456789abcdef"


async def started(*arguments):
    return await WorkerChild.start(arguments, worker_environment(TOKEN))


def test_it_tells_its_phases_then_where_it_is(tmp_path):
    """And ends with 0 when told to."""

    async def scenario():
        phases = []
        child = await started(f"--listen=unix:{tmp_path}/w", "--engine=ledger")
        ready = await child.ready(phases.append)
        await child.stop(10)
        return phases, ready, await child.ended()

    phases, ready, code = asyncio.run(scenario())
    assert phases == ["reading tokenizer", "first token"]
    assert (ready.address, ready.own_context, code) == (f"unix:{tmp_path}/w", 8192, 0)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--engine=ledger", "--", "/none"), r"/none is not a directory"),
        (("--engine=ledger", "--listen=unix:/none/w"), r"cannot listen on unix:/none/w: is it .*"),
        (("--engine=magic",), r"a worker ended before it was ready \(exit code 2\)"),
    ],
)
def test_one_that_cannot_serve_says_why(arguments, reason):
    """In its words, or by how it ended."""

    async def scenario():
        child = await started(*arguments)
        try:
            await child.ready(lambda _: None)
        finally:
            await child.stop(0)

    with pytest.raises(WorkerFailed) as failure:
        asyncio.run(scenario())
    assert re.fullmatch(reason, str(failure.value))


def test_one_that_is_killed_while_it_loads_has_failed(tmp_path):
    """By the signal that it got."""

    async def scenario():
        child = await started(f"--listen=unix:{tmp_path}/w", "--engine=ledger")
        await child.stop(0)
        with pytest.raises(WorkerFailed, match="signal 9"):
            await child.ready(lambda _: None)

    asyncio.run(scenario())


def test_no_descriptor_is_left(tmp_path):
    """Of its pipes."""

    async def scenario():
        child = await started("--engine=ledger", f"--listen=unix:{tmp_path}/w")
        await child.ready(lambda _: None)
        await child.stop(10)

    asyncio.run(scenario())
    before = psutil.Process().num_fds()
    asyncio.run(scenario())
    assert psutil.Process().num_fds() == before
