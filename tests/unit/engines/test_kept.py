"""What goes with a request that moves: packed for its worker, recalled for who comes after."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.api import Finish, FinishReason, Kept, TokenEvent, TokenLogprobs
from engines.replicas import progress
from engines.replicas.progress import Lied, Progress
from engines.wire.kept import kept_message, kept_of
from tests.support.engines import ask

TOKENS = st.lists(st.integers(0, 499), max_size=20)


@st.composite
def events(draw):
    tokens = draw(TOKENS)
    finish = draw(st.sampled_from([None, Finish(FinishReason.LENGTH, len(tokens))]))
    scores = [TokenLogprobs(-0.5, ((one, -0.5), (7, -1.5))) for one in tokens]
    scored = draw(st.booleans()) and tokens
    return TokenEvent(draw(st.integers(0, 3)), tokens, 3, scores if scored else None, finish)


@given(st.binary(max_size=60), st.integers(0, 9), st.lists(events(), max_size=3))
def test_what_is_kept_is_told_as_it_was(context, attempt, told):
    """A context without anything beside it is nothing else than before."""
    kept = Kept(b"{" + context, attempt, tuple(told))
    message = kept_message(kept)
    assert kept_of(message.context, message.attempt) == kept
    if not told:
        assert message.context == kept.context


@given(st.binary(max_size=40))
def test_what_nobody_packed_is_refused(rest):
    """With ValueError, whatever it is; or it is something that can be."""
    try:
        kept_of(b"\0told" + rest, 0)
    except ValueError:
        return


def kept(n=2, **sampling):
    return replace(ask("r", [1, 2], n=n, **sampling), kept=Kept(b"{}"))


def scored(choice, *tokens):
    return TokenEvent(choice, list(tokens), 1, [TokenLogprobs(-float(one)) for one in tokens])


def test_what_logs_do_not_say_goes_with_a_request():
    """The tokens of choices that have ended; of one that goes on the logs say them."""
    first = Progress(kept(), 500)
    first.take(TokenEvent(0, [3, 4], 1))
    first.take(TokenEvent(1, [5], 1))
    assert first.told() == ()
    first.waive(0)
    assert [event.tokens for event in first.told()] == [[3, 4]]
    assert first.rest().emitted == (None, (5,))
    assert Progress(replace(kept(), kept=None), 500).told() == ()


def test_log_probabilities_go_with_a_request():
    """All of them, so that who comes after tells them from the first token on."""
    request = kept(1, logprobs=0)
    first = Progress(request, 500)
    first.take(scored(0, 3, 4))
    event = scored(0, 5)
    first.take(event)
    event.merge(scored(0, 6))  # as a reader may do with what it has
    (told,) = first.told()
    assert (told.tokens, told.logprobs) == ([3, 4, 5], scored(0, 3, 4, 5).logprobs)
    second = Progress(request, 500)
    (recalled,) = second.recall((told,))
    assert (recalled.tokens, recalled.logprobs) == (told.tokens, told.logprobs)
    assert second.rest().emitted == ((3, 4, 5),)
    third = Progress(replace(request, emitted=((3, 4),)), 500)
    assert [event.tokens for event in third.recall((told,))] == [[5]]
    assert Progress(replace(request, emitted=((3, 4, 5, 6),)), 500).recall((told,)) == []


def test_who_began_in_the_middle_knows_no_scores_before():
    """So it hands on none; what it knows of tokens, it does."""
    first = Progress(replace(kept(logprobs=0), emitted=((3,), (4,))), 500)
    first.take(scored(0, 5))
    first.waive(0)
    assert first.told() == ()
    second = Progress(replace(kept(), emitted=((3,), (4,))), 500)
    second.take(TokenEvent(0, [5], 1))
    second.waive(0)
    assert [event.tokens for event in second.told()] == [[3, 5]]


def test_too_much_does_not_go_with_a_request(monkeypatch):
    """It can then not be told again; the request itself goes on."""
    monkeypatch.setattr(progress, "_MOST_SCORES", 3)
    first = Progress(kept(1, logprobs=0), 500)
    first.take(scored(0, 3, 4, 5))
    assert first.told()
    first.take(scored(0, 6))
    assert first.told() == ()


def test_a_worker_that_keeps_nonsense_is_not_believed():
    """Such as tokens of no vocabulary."""
    with pytest.raises(Lied):
        Progress(kept(), 500).recall((TokenEvent(0, [999], 0),))
