"""When a step's tokens are told: at once, or as soon as the next step is under way."""

import asyncio
import contextlib
import threading

import pytest

from engines.errors import EngineDied
from tests.support.engines import ask, ledger, limits_for, running, stepped


class Halting:
    """A ledger that stands in the second half of a step, or in the first, until it is let go."""

    def __init__(self, *, ahead: bool) -> None:
        self._inner = ledger(limits_for())
        self._gate = threading.Semaphore(0)
        self.ahead = ahead
        self.launched = 0

    def launches_ahead(self, _plan) -> bool:
        return self.ahead

    def allow(self, steps: int) -> None:
        self._gate.release(steps)

    def _pass(self) -> None:
        assert self._gate.acquire(timeout=30), "the test never let it go"

    def launch(self, plan):
        self.launched += 1
        if not self.ahead:
            self._pass()
        return self._inner.launch(plan)

    def collect(self, ticket):
        if self.ahead:
            self._pass()
        return self._inner.collect(ticket)

    def close(self) -> None:
        self._inner.close()


async def two_tokens(runner: Halting) -> None:
    """Each token comes while the step behind it stands, and the last without any."""
    async with running(stepped(limits_for(), lambda _: runner)) as engine:
        stream = engine.generate(ask("a", [1, 2, 3], max_tokens=2))
        runner.allow(1)
        first = await anext(stream)
        assert len(first.tokens) == 1
        if runner.ahead:
            assert runner.launched == 2, "told before the next step was under way"
        runner.allow(1)
        assert [event async for event in stream][-1].finish is not None
        assert runner.launched == 2


@pytest.mark.parametrize("ahead", [True, False])
def test_no_token_waits_for_the_step_behind_it(ahead):
    """Whether the device computes within `launch` or behind it."""
    asyncio.run(asyncio.wait_for(two_tokens(Halting(ahead=ahead)), 30))


async def last_token_beside_one_that_leaves() -> None:
    """The other's end takes the work away for which the telling would have waited."""
    runner = Halting(ahead=True)
    async with running(stepped(limits_for(), lambda _: runner)) as engine:
        ends = engine.generate(ask("ends", [1, 2, 3], max_tokens=3))
        leaves = engine.generate(ask("leaves", [4, 5, 6], max_tokens=50))
        runner.allow(2)
        for stream in (ends, leaves):
            await anext(stream)
        await leaves.aclose()  # while the third step stands
        runner.allow(1)
        assert [event async for event in ends][-1].finish is not None


def test_a_last_token_is_told_though_all_others_leave():
    """Nothing is left to compute, and what was said is not held back."""
    asyncio.run(asyncio.wait_for(last_token_beside_one_that_leaves(), 30))


class Fails(Halting):
    """Its third step cannot be launched."""

    def launch(self, plan):
        if self.launched == 2:
            raise RuntimeError("the device is gone")
        return super().launch(plan)


@pytest.mark.parametrize("ahead", [True, False])
def test_what_was_said_is_told_though_the_next_step_fails(ahead):
    """Two tokens were computed before the device broke: their reader has them."""

    async def scenario() -> int:
        runner, said = Fails(ahead=ahead), 0
        runner.allow(9)
        async with running(stepped(limits_for(), lambda _: runner)) as engine:
            with contextlib.suppress(EngineDied):
                async for event in engine.generate(ask("a", [1, 2, 3], max_tokens=9)):
                    said += len(event.tokens)
        return said

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == 2
