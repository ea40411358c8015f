"""Requests as TensorRT-LLM's calls: every field, and every trap of its defaults."""

import json
import math

import numpy as np
import pytest

from engines.api import Capability, GenerationRequest, RequestId, Sampling, ThinkingBudget
from engines.errors import Unsupported
from engines.self_batching.guide import guide_of
from engines.trtllm.features import Features
from engines.trtllm.sampling import Writer
from tests.support.trtllm_standin.facts import facts

NONE = frozenset()


def writer(version="1.4.0rc1", **changes):
    sampling = frozenset(facts(version)["SamplingParams"])
    call = frozenset(each["name"] for each in facts(version)["LLM"]["generate_async"])
    values = {
        "features": Features(NONE, NONE, NONE, NONE, sampling, call),
        "vocab_size": 20,
        "ends": frozenset({19}),
        "applies": frozenset({"penalties", "min_p"}),
        "grammars": True,
        "thinks": True,
    }
    return Writer(**{**values, **changes})


def asked(emitted=(), cache_salt=b"", **sampling):
    values = {"max_tokens": 9, "temperature": 0.0, **sampling}
    return GenerationRequest(
        RequestId("a"), (1, 2, 3), Sampling(**values), emitted=emitted, cache_salt=cache_salt
    )


def stage(log=(), **sampling):
    return writer().stage(asked(**sampling), 0, log)


def test_a_greedy_request_says_no_more_than_it_must():
    """max_tokens always, since its default is 32; no end token, since it would not be returned."""
    said = stage(stop_tokens=frozenset({5, 4}))
    assert said.prompt == [1, 2, 3]
    assert said.parameters == {
        "max_tokens": 9,
        "end_id": -1,
        "detokenize": False,
        "add_special_tokens": False,
        "temperature": 0.0,
        "stop_token_ids": [4, 5],
        "include_stop_str_in_output": True,
    }
    assert said.bias is None
    assert said.guide is None


def test_drawing():
    """top_k 0 is off there as well; min_p only where it is asked for."""
    said = stage(temperature=0.7, top_k=0, top_p=0.9, seed=4).parameters
    assert (said["temperature"], said["top_k"], said["top_p"]) == (0.7, 0, 0.9)
    assert "min_p" not in said
    assert stage(temperature=0.7, min_p=0.1).parameters["min_p"] == 0.1


def test_seeds_differ_by_choice_and_by_what_was_said_and_fit():
    """The same request draws the same; a continuation does not repeat the first draws."""
    request = asked(temperature=1.0, seed=7)
    seeds = [
        writer().stage(request, choice, log).parameters["seed"]
        for choice, log in [(0, ()), (1, ()), (0, (4,)), (0, ())]
    ]
    assert seeds[0] == seeds[3]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_penalties_count_what_ours_count():
    """Presence and frequency over the generated tokens, emitted ones included; repetition all."""
    said = stage((4, 5), presence=0.5, frequency=0.25, repetition=1.2).parameters
    assert said["presence_penalty"] == 0.5
    assert said["frequency_penalty"] == 0.25
    assert said["repetition_penalty"] == 1.2
    assert said["prompt_ignore_length"] == 3
    assert "prompt_ignore_length" not in stage(repetition=1.2).parameters


def test_bias_allowed_and_bans_are_one_vector():
    """A ban is stronger than a bias; unknown tokens are nobody's."""
    bias = stage(bias={2: 1.5, 3: 2.0, 99: 1.0}, bad_words=((3,),)).bias
    assert (bias[2], bias[3], bias[4]) == (1.5, -math.inf, 0.0)
    only = stage(allowed=frozenset({2, 3, 99}), bias={3: 1.0}).bias
    assert list(np.flatnonzero(np.isfinite(only))) == [2, 3]
    assert only[3] == 1.0


def test_stop_tokens_are_banned_until_min_tokens_and_looked_for_after():
    """Two calls: one that no stop token can end, and the rest."""
    first = stage(stop_tokens=frozenset({4}), min_tokens=5)
    assert (first.parameters["max_tokens"], first.last, first.holds_stops) == (5, 5, True)
    assert "stop_token_ids" not in first.parameters
    assert first.bias[4] == -math.inf
    rest = stage((6,) * 5, stop_tokens=frozenset({4}), min_tokens=5)
    assert (rest.parameters["max_tokens"], rest.last, rest.holds_stops) == (4, 9, False)
    assert rest.prompt == [1, 2, 3, *(6,) * 5]
    assert rest.bias is None
    assert not stage(min_tokens=5).holds_stops


def test_log_probabilities_are_asked_for_at_least_one():
    """0 means none at all to some versions."""
    assert stage(logprobs=0).parameters["logprobs"] == 1
    assert stage(logprobs=4).parameters["logprobs"] == 4
    assert "logprobs" not in stage().parameters


def test_a_thinking_budget_is_said_where_it_can_be_kept():
    """Only with the field and a reasoning parser."""
    thinking = ThinkingBudget(6, (), (4,))
    assert stage(thinking=thinking).parameters["thinking_token_budget"] == 6
    for one in (writer("1.2.1"), writer(thinks=False)):
        with pytest.raises(Unsupported, match="thinking"):
            one.check(asked(thinking=thinking))


def test_penalties_are_offered_only_where_they_are_faithful():
    """The operator says that they are applied; the version, that the prompt can be left out."""
    assert Capability.PENALTIES in writer().capabilities
    assert Capability.PENALTIES not in writer(applies=NONE).capabilities
    assert Capability.PENALTIES not in writer("1.2.1").capabilities
    assert Capability.PROMPT_LOGPROBS not in writer().capabilities
    assert Capability.GRAMMAR not in writer(grammars=False).capabilities


ENDS = frozenset({19})
GRAMMAR = {"grammar": "start: /a/", "stop_tokens": ENDS}


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (asked(bad_words=((1, 2),)), "bad_words"),
        (asked(thinking=ThinkingBudget(6, (), (4,)), emitted=((1,),)), "thinking"),
        (asked(grammar="start: /a/"), "grammar"),  # nothing would end it
        (asked(**GRAMMAR, emitted=((1,),)), "grammar"),
        (asked(**GRAMMAR, min_tokens=3), "grammar"),
        (asked(**GRAMMAR, bad_words=((1,),)), "grammar"),
        (asked(**GRAMMAR, allowed=frozenset({1})), "grammar"),
        (asked(grammar='{"grammars": [{}, {}]}', stop_tokens=ENDS), "grammar"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_name(request_, param):
    """Rather than ignored or done in another way."""
    with pytest.raises(Unsupported) as refused:
        writer().check(request_)
    assert refused.value.param == param


def test_min_p_and_salts_are_refused_where_they_would_be_ignored():
    """Some samplers ignore min_p; a version without salts would share between tenants."""
    with pytest.raises(Unsupported, match="min_p"):
        writer(applies=NONE).check(asked(min_p=0.1))
    without = writer()
    features = Features(NONE, NONE, NONE, NONE, without.features.sampling, NONE)
    with pytest.raises(Unsupported, match="salt"):
        writer(features=features).check(asked(cache_salt=b"x"))


def test_one_grammar_is_said_in_the_words_of_guided_decoding():
    """Lark as it is, a schema as JSON; what has options or siblings cannot be said."""
    writer().check(asked(**GRAMMAR))
    assert stage(**GRAMMAR).guide == {"grammar": "start: /a/"}
    one = json.dumps({"grammars": [{"lark_grammar": "start: /b/"}]})
    assert guide_of(one) == {"grammar": "start: /b/"}
    schema = {"type": "object", "x-guidance": {"whitespace_flexible": False}}
    said = guide_of(json.dumps({"grammars": [{"json_schema": schema}]}))
    assert json.loads(said["json"]) == schema
    for other in (
        {"grammars": [{"lark_grammar": "start: @a"}, {"name": "a", "lark_grammar": "start: /a/"}]},
        {"grammars": [{"lark_grammar": "start: /a/", "name": "a"}]},
        {"grammars": [{"json_schema": {}}], "max_tokens": 4},
        {"type": "object"},
    ):
        assert guide_of(json.dumps(other)) is None
    assert guide_of("{") is None
