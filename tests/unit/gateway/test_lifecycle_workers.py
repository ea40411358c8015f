"""What the phase says of workers: how many are up, and that none is."""

import pytest

from gateway.lifecycle import Lifecycle
from openai_compat.errors import Unavailable


def test_readiness_tells_how_many_workers_are_up():
    """In words of an operator; without workers nothing is said of them."""
    lifecycle = Lifecycle()
    lifecycle.ready(object())
    assert (lifecycle.state.status, lifecycle.state.phase) == ("ready", "ready")
    lifecycle.workers(2, 3)
    assert (lifecycle.state.status, lifecycle.state.phase) == ("ready", "2 of 3 workers up")
    lifecycle.workers(0, 3)
    assert (lifecycle.state.status, lifecycle.state.phase) == ("unavailable", "0 of 3 workers up")


def test_calls_are_refused_while_no_worker_is_up():
    """With a code and a time of their own; and taken again when one is."""
    lifecycle = Lifecycle()
    serving = object()
    lifecycle.workers(1, 1)
    lifecycle.ready(serving)
    assert lifecycle.takes_calls
    lifecycle.workers(0, 1)
    assert not lifecycle.takes_calls
    with pytest.raises(Unavailable) as refusal:
        lifecycle.serving()
    assert (refusal.value.reply.status, refusal.value.reply.code) == (503, "no_worker")
    assert refusal.value.reply.retry_after_s
    lifecycle.workers(1, 1)
    assert lifecycle.serving() is serving


def test_a_drain_is_a_drain_whatever_the_workers_do():
    """They end meanwhile."""
    lifecycle = Lifecycle()
    lifecycle.workers(1, 1)
    lifecycle.ready(object())
    lifecycle.drain()
    lifecycle.workers(0, 1)
    assert lifecycle.state.status == "draining"
