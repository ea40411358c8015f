"""Each guide by value: what may come next, what must, and what happens where guides disagree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.api import Sampling, ThinkingBudget
from engines.guides.bits import holds, only, row_of, tokens_of
from engines.guides.lanes import LaneGuides
from engines.guides.phrases import BadWords, Occurrence
from engines.guides.sequence import SequenceGuide
from engines.guides.thinking import Thinking
from engines.step import LaneStart
from tests.support.grammars import END, TOKENIZER, compiler, json_grammar, regex_grammar, text

VOCAB = 400
EVERY = set(range(VOCAB))
tokens = st.lists(st.integers(0, 2), max_size=40)
phrases = st.lists(st.integers(0, 2), min_size=1, max_size=5)


def encode(words):
    return TOKENIZER.encode(words).ids


@pytest.fixture(scope="module")
def grammars():
    made = compiler(VOCAB)
    yield made
    made.close()


@pytest.fixture
def guide(grammars):
    """Guides of one sequence; grammars are held while the test runs."""
    held = []

    def one(**sampling):
        values = {"stop_tokens": frozenset({END}), **sampling}
        if "grammar" in values:
            held.append(grammars.compile(values["grammar"]).result())
        matcher = held[-1].sequence() if "grammar" in values else None
        return SequenceGuide(Sampling(1000, **values), VOCAB, matcher)

    return one


def may(guide):
    """The tokens that may come next."""
    row = np.zeros(-(-VOCAB // 32), np.int32)
    guide.fill(row)
    return set(tokens_of(row, VOCAB).tolist())


@given(st.sets(st.integers(-3, 99)), st.integers(0, 79))
def test_rows_hold_the_tokens_put_in(members, token):
    """Ids outside the vocabulary are left out, on every word boundary."""
    row = row_of(members, 80)
    inside = {member for member in members if 0 <= member < 80}
    assert set(tokens_of(row, 80).tolist()) == inside
    assert holds(row, token) == (token in inside)
    only(row, token)
    assert tokens_of(row, 80).tolist() == [token]


@given(phrases, tokens)
def test_an_occurrence_is_found_where_a_rescan_finds_it(phrase, stream):
    """The first one; what overlaps a finished one does not count."""
    found, rest = Occurrence(phrase), []
    for token in stream:
        rest.append(token)
        met = rest[-len(phrase) :] == phrase
        assert found.feed(token) == met
        if met:
            rest.clear()


@given(st.lists(phrases, min_size=1, max_size=5), tokens)
def test_bad_words_are_banned_exactly_before_they_would_be_complete(words, stream):
    """The same as looking through all that was generated, each time."""
    guide, log = BadWords(words), []
    for token in [*stream, 0]:
        want = {w[-1] for w in words if len(w) == 1 or log[-len(w) + 1 :] == list(w[:-1])}
        assert set(guide.banned()) == want
        guide.take(token)
        log.append(token)


def test_a_thinking_budget_forces_the_end_token_by_token():
    """Three tokens of reasoning, then both tokens of the end, then nothing more, for good."""
    thinking = Thinking(ThinkingBudget(3, begin=(7,), end=(8, 9)))
    said = []
    for token in (1, 7, 2, 2):
        assert thinking.wants is None
        thinking.take(token)
    for _ in range(3):
        if thinking.wants is not None:
            said.append(thinking.wants)
        thinking.take(2 if thinking.wants is None else thinking.wants)
    assert said == [8, 9]
    for token in (7, 2, 2, 2, 2):
        thinking.take(token)
        assert thinking.wants is None


def test_thinking_that_ends_by_itself_is_left_alone():
    """The end seen within the budget switches it off, also where it begins within the budget."""
    early = Thinking(ThinkingBudget(5, begin=(), end=(8, 9)))
    for token in (1, 8, 9, 1, 1, 1, 1):
        assert early.wants is None
        early.take(token)
    half = Thinking(ThinkingBudget(2, begin=(), end=(8, 9)))
    half.take(1)
    half.take(8)
    assert half.wants == 9
    assert Thinking(ThinkingBudget(0, begin=(), end=(8, 9))).wants == 8


def test_a_sequence_without_masks_may_say_anything(guide):
    """Bad words ban, they do not mask; a budget masks only when it is spent."""
    words = guide(bad_words=((1,), (2, 3)))
    assert not words.masks
    assert (words.banned(), may(words)) == ([1], EVERY)
    words.take(2)
    assert sorted(words.banned()) == [1, 3]
    budget = guide(thinking=ThinkingBudget(1, (), (5,)))
    assert not budget.masks
    budget.take(9)
    assert budget.masks
    assert may(budget) == {5}


def test_allowed_tokens_are_the_only_ones(guide):
    """Those beyond the vocabulary change nothing."""
    assert may(guide(allowed=frozenset({3, 4, VOCAB + 7}))) == {3, 4}


def test_a_grammar_allows_what_goes_on_and_the_end_when_it_is_complete(guide):
    """Digits, and the end once there is one; never an id between the two vocabularies."""
    number = guide(grammar=regex_grammar("[0-9]+"), logprobs=0)
    digits = {t for t in range(VOCAB) if (TOKENIZER.id_to_token(t) or "x") in "0123456789"}
    assert may(number) == digits
    number.take(min(digits))
    assert may(number) == digits | {END}
    anything = may(guide(grammar="start: /(.|\\n)*/"))
    assert max(anything) < TOKENIZER.get_vocab_size()


def test_the_end_of_a_grammar_is_all_that_is_left(guide):
    """Nothing but the end after a closed object, with any other guide beside it."""
    first, *rest = encode('{"a":7}')
    schema = {"type": "object", "properties": {"a": {"const": 7}}, "required": ["a"]}
    for other in ({}, {"allowed": frozenset([first, *rest])}):
        done = guide(
            grammar=json_grammar({**schema, "additionalProperties": False}), logprobs=0, **other
        )
        done.replay([first, *rest])
        assert may(done) == {END}
        assert done.failure is None


def test_forced_tokens_follow_the_sampled_one_and_are_taken(guide):
    """What is returned is the only way on, up to where there is a choice again."""
    guided = guide(grammar=json_grammar({"enum": ["abcdefgh", "abcdefxy"]}))
    quote = encode('"')[0]
    assert quote in may(guided)
    forced = guided.take(quote)
    assert text([quote, *forced]) == '"abcdef'
    assert {text([token])[0] for token in may(guided)} == {"g", "x"}


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"logprobs": 0}, ""),
        ({"stop_tokens": frozenset({END, encode("d")[0]})}, "bc"),
        ({"allowed": frozenset(encode('"abcd'))}, "bcd"),
        ({"thinking": ThinkingBudget(2, (), tuple(encode("cXd")))}, "bc"),
    ],
    ids=["logprobs", "stop", "allowed", "thinking"],
)
def test_nothing_is_forced_past_what_another_guide_wants_to_see(guide, sampling, said):
    """Log-probabilities, a stop token, allowed tokens and a spent budget each stop the forcing."""
    guided = guide(grammar=regex_grammar("abcdefgh"), **sampling)
    assert text(guided.take(encode("a")[0])) == said


def test_a_replayed_sequence_is_where_it_was(guide):
    """Masks, bans and budget are a function of the tokens said, forced ones included."""
    values = {
        "grammar": json_grammar(
            {"type": "array", "items": {"enum": ["one", "two"]}, "minItems": 90}
        ),
        "bad_words": (tuple(encode("o")),),
        "thinking": ThinkingBudget(40, (), (1, 2)),
    }
    rng = np.random.default_rng(0)
    guided, log = guide(**values), []
    for _ in range(60):
        token = int(rng.choice(sorted(may(guided) - {END})))
        log += [token, *guided.take(token)]
        again = guide(**values)
        again.replay(log)
        assert (may(again), again.banned()) == (may(guided), guided.banned())
    assert guided.failure is None


def test_thinking_waits_until_the_grammar_lets_it_end(guide):
    """Within a character, or where the grammar has no place for the end, the grammar wins."""
    end = encode("#")[0]
    budget = ThinkingBudget(1, (), (end,))
    guided = guide(grammar='start: /(.|\\n)*/ "#" /[0-9]/', thinking=budget, logprobs=0)
    half = TOKENIZER.token_to_id("ð")
    guided.take(half)
    assert end not in may(guided)
    for piece in ("Ł", "Ļ", "Ĥ"):
        guided.take(TOKENIZER.token_to_id(piece))
    assert may(guided) == {end}
    without = guide(grammar=regex_grammar("[0-9]+"), thinking=budget, logprobs=0)
    without.take(encode("7")[0])
    assert END in may(without)


def test_allowed_tokens_that_a_grammar_cannot_use_fail_the_sequence(guide):
    """There is no token to sample: the reason is told, and the row stays one to sample from."""
    guided = guide(grammar=regex_grammar("[0-9]+"), allowed=frozenset(encode("x")))
    assert may(guided) == EVERY | set(range(VOCAB))
    assert "allowed" in guided.failure
    assert guided.take(3) == []


def test_a_token_the_grammar_does_not_take_fails_the_sequence(guide):
    """As a limit of llguidance does: in one line, without the grammar."""
    guided = guide(grammar=regex_grammar("[0-9]+"))
    guided.take(encode("x")[0])
    assert "the grammar cannot go on" in guided.failure
    assert "[0-9]" not in guided.failure


def test_only_guided_lanes_are_masked_and_steered(grammars):
    """Samples are numbered as the lanes were given; an ordinary lane gets nothing at all."""
    source = regex_grammar("abcdef")
    held = grammars.compile(source).result()
    guides = LaneGuides(VOCAB, grammars)
    guides.start(LaneStart(5, 0, Sampling(9, grammar=source), (1,)))
    guides.start(LaneStart(2, 0, Sampling(9), (1,)))
    guides.start(LaneStart(7, 0, Sampling(9, bad_words=((3,), (4,))), (1,)))
    lanes = np.array([2, 7, 5])
    assert guides.masks(np.array([2, 7])) is None
    assert guides.masks(lanes).samples.tolist() == [2]
    samples, banned = guides.banned(lanes)
    assert (samples.tolist(), banned.tolist()) == ([1, 1], [3, 4])
    a = encode("a")[0]
    steered = guides.advance(lanes, np.array([a, a, a]))
    assert (text(steered.forced[2]), len(steered.forced), steered.failed) == ("bcdef", 1, {})
    guides.start(LaneStart(5, 0, Sampling(9), (1,)))
    assert guides.masks(lanes) is None
    assert held.source == source


def test_a_failed_lane_goes_on_unguided_and_its_grammar_is_compiled_afresh(grammars):
    """Its request is being taken away; what its sequences learned is not shared further."""
    source = regex_grammar("[0-9]{3}")
    held = grammars.compile(source).result()
    guides = LaneGuides(VOCAB, grammars)
    guides.start(LaneStart(0, 0, Sampling(9, grammar=source), (1,)))
    lane = np.array([0])
    failed = guides.advance(lane, np.array(encode("x")[:1])).failed
    assert "cannot go on" in failed[0]
    assert guides.masks(lane) is None
    assert guides.advance(lane, np.array([1])).failed == {}
    assert grammars.compile(source).result() is not held


def test_a_grammar_that_nobody_holds_fails_its_sequence():
    """The engine holds it for every open request; losing it is no reason to ignore it."""
    guides = LaneGuides(VOCAB, None)
    guides.start(LaneStart(0, 0, Sampling(9, grammar="start: /a/"), (1,)))
    lane = np.array([0])
    assert guides.masks(lane) is None
    assert guides.advance(lane, np.array([1])).failed == {0: "its grammar is not there"}
