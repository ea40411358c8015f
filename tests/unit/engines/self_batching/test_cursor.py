"""What is read of a growing output: each token once, and the end decided by the tokens."""

from types import SimpleNamespace

import pytest

from engines.api import Finish, FinishReason, Sampling, TokenLogprobs
from engines.errors import RequestFailed
from engines.self_batching.cursor import Cursor
from engines.trtllm.sampling import Stage


def cursor(*, last=9, holds_stops=False, said=0, **sampling):
    values = {"max_tokens": 9, "stop_tokens": frozenset({4}), **sampling}
    stage = Stage([1], {}, None, None, last, holds_stops)
    return Cursor(Sampling(**values), stage, said)


def output(*tokens, logprobs=(), finish=None, stop=None):
    return SimpleNamespace(
        token_ids=list(tokens), logprobs=list(logprobs), finish_reason=finish, stop_reason=stop
    )


def test_only_what_is_new_is_read():
    """`token_ids` are cumulative; a reading without news is empty."""
    one = cursor()
    assert one.read(output(1, 2), ended=False).tokens == [1, 2]
    assert one.read(output(1, 2), ended=False).tokens == []
    reading = one.read(output(1, 2, 3, 5), ended=False)
    assert (reading.tokens, reading.finish, reading.over) == ([3, 5], None, False)


def test_a_stop_token_ends_it_and_nothing_behind_it_is_read():
    """Speculative engines tell several at once."""
    reading = cursor(said=2).read(output(1, 4, 7, 4), ended=False)
    assert reading.tokens == [1, 4]
    assert reading.finish == Finish(FinishReason.STOP, 4, 4)
    assert reading.over


def test_max_tokens_ends_it_however_many_are_told():
    """Never more than was asked for; a stop token in the last place counts as a stop."""
    assert cursor(last=3, max_tokens=3).read(output(1, 2, 3, 5), ended=False).finish == Finish(
        FinishReason.LENGTH, 3
    )
    assert cursor(last=3, max_tokens=3).read(
        output(1, 2, 4, finish="length"), ended=True
    ).finish == Finish(FinishReason.STOP, 3, 4)


def test_a_call_that_holds_stops_back_ends_without_a_finish():
    """Its stop tokens mean nothing; the next call goes on."""
    reading = cursor(last=2, holds_stops=True).read(output(1, 4, finish="length"), ended=True)
    assert (reading.tokens, reading.finish, reading.over) == ([1, 4], None, True)


@pytest.mark.parametrize(("named", "stops"), [(4, {4, 5}), (None, {4})])
def test_a_stop_token_that_was_kept_back_is_added(named, stops):
    """From its name, or because there is no other."""
    reading = cursor(stop_tokens=frozenset(stops)).read(
        output(1, 2, finish="stop", stop=named), ended=True
    )
    assert reading.tokens == [1, 2, 4]
    assert reading.finish == Finish(FinishReason.STOP, 3, 4)


def test_its_own_bound_is_a_length():
    """Where the engine's context ends before ours."""
    assert cursor().read(output(1, finish="length"), ended=True).finish == Finish(
        FinishReason.LENGTH, 1
    )


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"finish": "stop"}, "did not tell"),
        ({"finish": "stop", "stop": 7}, "did not tell"),
        ({"finish": "stop", "stop": "text"}, "did not tell"),
        ({"finish": "cancelled"}, "cancelled"),
        ({"finish": "timeout"}, "timeout"),
        ({}, "None"),
    ],
)
def test_an_end_without_a_reason_of_ours_fails_the_request(told, words):
    """It is never taken for a normal end."""
    with pytest.raises(RequestFailed, match=words):
        cursor(stop_tokens=frozenset({4, 5})).read(output(1, **told), ended=True)


def entry(**values):
    return {int(token[1:]): SimpleNamespace(logprob=value) for token, value in values.items()}


def test_log_probabilities_keep_step_with_tokens():
    """A token waits for its own; the most likely come first, no more than asked for."""
    one = cursor(logprobs=1)
    first, second = entry(t1=-0.5, t9=-0.1), entry(t2=-0.2)
    reading = one.read(output(1, 2, logprobs=[first]), ended=False)
    assert reading.tokens == [1]
    assert reading.logprobs == [TokenLogprobs(-0.5, ((9, -0.1),))]
    reading = one.read(output(1, 2, logprobs=[first, second]), ended=False)
    assert reading.logprobs == [TokenLogprobs(-0.2, ((2, -0.2),))]


def test_plain_values_do_where_no_others_are_wanted():
    """Some versions give the sampled token's value alone."""
    reading = cursor(logprobs=0).read(output(1, logprobs=[-0.5]), ended=False)
    assert reading.logprobs == [TokenLogprobs(-0.5)]


@pytest.mark.parametrize(
    ("logprobs", "told", "words"),
    [
        (2, [-0.5], "most likely"),
        (2, [entry(t7=-1.0)], "of a token"),
        (2, [], "left out log-prob"),
    ],
)
def test_log_probabilities_that_are_missing_fail_the_request(logprobs, told, words):
    """Nothing is made up."""
    with pytest.raises(RequestFailed, match=words):
        cursor(logprobs=logprobs).read(output(1, logprobs=told, finish="length"), ended=True)


def test_a_stop_token_without_its_log_probability_fails_the_request():
    """It was kept back, and so was what it weighed."""
    with pytest.raises(RequestFailed, match="of a stop token"):
        cursor(logprobs=0).read(output(1, logprobs=[-0.5], finish="stop", stop=4), ended=True)
