"""Lookups that are shared: one looks, all hear."""

import asyncio

import pytest

from gateway.lookups import Lookups


class Looked:
    """Counts who looks, and answers when a test lets it."""

    def __init__(self, error=None):
        self.times = 0
        self.error = error
        self.answers = asyncio.Event()

    async def __call__(self, key):
        self.times += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return f"{key} {self.times}"


async def together(lookups, *keys):
    """All of them are under way."""
    tasks = [asyncio.create_task(lookups.find(key)) for key in keys]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def test_who_comes_meanwhile_hears_the_same():
    """And who comes after that looks anew."""

    async def scenario():
        looked = Looked()
        lookups = Lookups(looked)
        tasks = await together(lookups, "a", "a", "b", "a")
        assert looked.times == 2
        looked.answers.set()
        assert {await tasks[0], await tasks[1], await tasks[3]} == {await tasks[0]}
        assert await lookups.find("a") == "a 3"

    asyncio.run(scenario())


def test_an_error_is_everybodys():
    """None of them looks again by itself."""

    async def scenario():
        looked = Looked(KeyError("gone"))
        tasks = await together(Lookups(looked), "a", "a")
        looked.answers.set()
        for task in tasks:
            with pytest.raises(KeyError, match="gone"):
                await task
        assert looked.times == 1

    asyncio.run(scenario())


def test_who_leaves_ends_it_for_nobody():
    """Not even the one who came first."""

    async def scenario():
        looked = Looked()
        first, second = await together(Lookups(looked), "a", "a")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        looked.answers.set()
        assert await second == "a 1"
        assert first.cancelled()

    asyncio.run(scenario())
