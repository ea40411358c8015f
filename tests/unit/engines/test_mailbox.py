"""Mailboxes merge what a slow reader has not read yet."""

import asyncio

import pytest

from engines.api import Finish, FinishReason, TokenEvent, TokenLogprobs
from engines.mailbox import Mailbox
from tests.support.engines import ask

pytestmark = pytest.mark.anyio


def mailbox(n=1):
    """A mailbox and the aborts it asked for."""
    aborts = []
    return Mailbox(ask("a", [1], n=n), lambda _, choice: aborts.append(choice)), aborts


def said(token, choice=0, finish=None):
    return TokenEvent(choice, [token], 0, [TokenLogprobs(-0.5 * token)], finish)


async def test_tokens_and_their_logprobs_merge_together():
    """One event with everything, each token with its own log-probability, and the finish."""
    box, _ = mailbox()
    for token in range(3):
        box.push(said(token))
    box.push(said(3, finish=Finish(FinishReason.LENGTH, 4)))
    event = await anext(box)
    assert event.tokens == [0, 1, 2, 3]
    assert [entry.logprob for entry in event.logprobs] == [0, -0.5, -1, -1.5]
    assert event.finish.generated == 4
    with pytest.raises(StopAsyncIteration):
        await anext(box)


async def test_choices_merge_apart():
    """At most one pending event per choice."""
    box, _ = mailbox(n=2)
    for token in range(4):
        box.push(said(token, choice=token % 2))
    assert (await anext(box)).tokens == [0, 2]
    assert (await anext(box)).tokens == [1, 3]


async def test_a_failure_comes_after_what_was_owed():
    """Tokens that are there are read before the error."""
    box, _ = mailbox()
    box.push(said(1))
    box.fail(RuntimeError("gone"))
    assert (await anext(box)).tokens == [1]
    with pytest.raises(RuntimeError, match="gone"):
        await anext(box)
    with pytest.raises(StopAsyncIteration):
        await anext(box)


async def test_nothing_follows_a_close():
    """Not even the error of an engine that failed meanwhile."""
    box, aborts = mailbox()
    box.fail(RuntimeError("gone"))
    await box.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(box)
    assert aborts == []


async def test_closing_wakes_a_reader_that_waits():
    """A reader in another task ends instead of waiting for ever."""
    box, aborts = mailbox()
    reader = asyncio.create_task(anext(box, None))
    await asyncio.sleep(0)
    await box.aclose()
    assert await reader is None
    assert aborts == [None]


async def test_ending_a_choice_asks_the_engine_once():
    """And drops what was pending of it."""
    box, aborts = mailbox(n=2)
    box.push(said(1, choice=1))
    box.end_choice(1)
    box.end_choice(1)
    box.push(said(2, choice=1))
    box.push(said(3, choice=0))
    assert (await anext(box)).tokens == [3]
    assert aborts == [1]
