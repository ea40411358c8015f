"""Requests as vLLM's calls: every field of Sampling, or a refusal that names it."""

import json
import math
from dataclasses import fields

import pytest

from engines.api import Capability, GenerationRequest, RequestId, Sampling, ThinkingBudget
from engines.errors import InvalidRequest, Unsupported
from engines.self_batching.split import seed_of
from engines.vllm.features import Features
from engines.vllm.sampling import Writer
from tests.support.vllm_facts import facts

NONE = frozenset()
END = 19


def writer(**changes):
    features = Features(
        arguments=NONE,
        sampling=frozenset(facts()["SamplingParams"]) - changes.pop("lacks", NONE),
        guides=frozenset(facts()["StructuredOutputsParams"]),
        call=NONE,
        opening=NONE,
        salts=changes.pop("salts", True),
    )
    values = {"features": features, "vocab_size": 20, "ends": frozenset({END}), "grammars": True}
    return Writer(**{**values, **changes})


def asked(emitted=(), cache_salt=b"", **sampling):
    values = {"max_tokens": 9, "temperature": 0.0, **sampling}
    return GenerationRequest(
        RequestId("a"), (1, 2, 3), Sampling(**values), emitted=emitted, cache_salt=cache_salt
    )


def stage(log=(), **sampling):
    request = asked(**sampling)
    writer().check(request)
    return writer().stage(request, 0, list(log))


ROWS = {  # field -> a value, and what it adds to a greedy call
    "max_tokens": (5, {"max_tokens": 5}),
    "temperature": (0.5, {"temperature": 0.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": ...}),
    "top_k": (7, {}),  # nothing is drawn
    "top_p": (0.5, {}),
    "min_p": (0.5, {}),
    "seed": (3, {}),
    "min_tokens": (4, {}),  # nothing ends it before
    "presence": (0.5, {"presence_penalty": 0.5}),
    "frequency": (-0.5, {"frequency_penalty": -0.5}),
    "repetition": (1.5, {"repetition_penalty": 1.5}),
    "bias": ({4: 2.0, 20: 1.0}, {"logit_bias": {4: 2.0}}),
    "stop_tokens": (frozenset({5, 4, 20}), {"stop_token_ids": [4, 5]}),
    "logprobs": (0, {"logprobs": 0}),
    "prompt_logprobs": (2, {"prompt_logprobs": 2}),
    "allowed": (frozenset({7, 6, 20}), {"allowed_token_ids": [6, 7]}),
    "bad_words": (
        ((4,), (5, 6), (7, 20)),
        {"logit_bias": {4: -math.inf}, "_bad_words_token_ids": [[5, 6]]},
    ),
    "thinking": (ThinkingBudget(4, (), (3,)), "thinking"),
    "grammar": ("start: /a/", "grammar"),  # the end token is no stop token
}


def test_every_field_has_a_row():
    """A new field of the port is decided upon here."""
    assert ROWS.keys() == {each.name for each in fields(Sampling)}


@pytest.mark.parametrize("name", ROWS)
def test_a_field_adds_what_it_says_or_is_refused_by_name(name):
    """Over a greedy request, which says no more than it must."""
    value, adds = ROWS[name]
    if isinstance(adds, str):
        with pytest.raises(Unsupported) as refused:
            stage(**{name: value})
        assert refused.value.param == adds
        return
    parameters = dict(stage(**{name: value}).parameters)
    if "seed" in adds:
        adds = {**adds, "seed": parameters["seed"]}
    greedy = {"max_tokens": 9, "ignore_eos": True, "detokenize": False, "temperature": 0.0}
    assert parameters == {**greedy, **adds}
    assert parameters.keys() <= set(facts()["SamplingParams"])


def test_a_drawn_request_passes_what_shapes_the_distribution():
    """Values as they are; noise is keyed by seed, choice and how much has been said."""
    said = stage(temperature=0.7, top_k=5, top_p=0.9, min_p=0.1, seed=3).parameters
    assert (said["temperature"], said["top_k"], said["top_p"], said["min_p"]) == (0.7, 5, 0.9, 0.1)
    seeds = {seed_of(3, choice, at) for choice in range(3) for at in range(3)}
    assert len(seeds) == 9
    assert said["seed"] == seed_of(3, 0, 0)
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_min_tokens_is_vllms_own_where_its_idea_of_the_end_is_ours():
    """What it would hold back besides is a stop token anyway."""
    said = stage(stop_tokens=frozenset({4, END}), min_tokens=3, presence=1.0)
    assert said.parameters["min_tokens"] == 3
    assert said.parameters["stop_token_ids"] == [4, END]
    assert not said.holds_stops
    assert stage((8,), stop_tokens=frozenset({END}), min_tokens=3).parameters["min_tokens"] == 2
    assert (
        "min_tokens" not in stage((8, 8, 8), stop_tokens=frozenset({END}), min_tokens=3).parameters
    )
    short = stage(max_tokens=2, stop_tokens=frozenset({END}), min_tokens=5)
    assert short.parameters["min_tokens"] == 2


def test_min_tokens_is_a_ban_in_a_call_of_its_own_where_it_is_not():
    """VLLM would hold the model's end token back, which here is a token like others."""
    first = stage(stop_tokens=frozenset({4}), min_tokens=3)
    assert first.parameters["max_tokens"] == 3
    assert first.parameters["logit_bias"] == {4: -math.inf}
    assert "stop_token_ids" not in first.parameters
    assert (first.last, first.holds_stops) == (3, True)
    then = stage((7, 7, 7), stop_tokens=frozenset({4}), min_tokens=3)
    assert then.parameters["max_tokens"] == 6
    assert then.parameters["stop_token_ids"] == [4]
    assert then.prompt == [1, 2, 3, 7, 7, 7]
    assert not then.holds_stops


def test_a_choice_goes_on_behind_what_it_has_said():
    """As prompt; its prompt is not scored a second time."""
    said = stage((4, 5), logprobs=1, prompt_logprobs=1)
    assert said.prompt == [1, 2, 3, 4, 5]
    assert (said.parameters["max_tokens"], said.last) == (7, 9)
    assert "prompt_logprobs" not in said.parameters


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        ({"presence": 1.0}, "sampling"),
        ({"frequency": 1.0}, "sampling"),
        ({"bad_words": ((4, 5),)}, "bad_words"),
        ({"grammar": "start: /a/", "stop_tokens": frozenset({END})}, "grammar"),
    ],
)
def test_what_looks_back_at_output_is_not_continued(sampling, param):
    """The emitted tokens are prompt to vLLM; so are those of a first call for min_tokens."""
    writer().check(asked(**sampling))
    with pytest.raises(Unsupported) as refused:
        writer().check(asked(emitted=((7,),), **sampling))
    assert refused.value.param == param
    if "stop_tokens" not in sampling:
        with pytest.raises(Unsupported):
            writer().check(asked(min_tokens=2, stop_tokens=frozenset({4}), **sampling))


def test_repetition_and_single_bad_words_are_continued():
    """They look at the prompt as well, or at nothing."""
    writer().check(asked(emitted=((7,),), repetition=1.5, bad_words=((4,),)))


def test_a_grammar_is_a_guide_where_it_is_one():
    """Lark or one JSON schema; it ends with the model's end token."""
    stops = frozenset({END})
    assert stage(grammar="start: /a/", stop_tokens=stops).guide == {"grammar": "start: /a/"}
    schema = json.dumps({"grammars": [{"json_schema": {"type": "object"}}]})
    guide = stage(grammar=schema, stop_tokens=stops).guide
    assert guide == {"json": '{"type": "object"}'}
    two = json.dumps({"grammars": [{"lark_grammar": "start: b"}, {"lark_grammar": "start: /a/"}]})
    for bad in (
        {"grammar": two},
        {"grammar": "start: /a/", "min_tokens": 2},
        {"grammar": "start: /a/", "allowed": frozenset({4})},
        {"grammar": "start: /a/", "bad_words": ((4,),)},
    ):
        with pytest.raises(Unsupported, match="grammar"):
            stage(**{"stop_tokens": stops, **bad})


def test_a_version_that_lacks_a_name_refuses_what_needs_it():
    """Found by its signatures."""
    with pytest.raises(Unsupported, match="several tokens"):
        writer(lacks=frozenset({"_bad_words_token_ids"})).check(asked(bad_words=((4, 5),)))
    writer(lacks=frozenset({"_bad_words_token_ids"})).check(asked(bad_words=((4,),)))
    with pytest.raises(Unsupported, match="salt"):
        writer(salts=False).check(asked(cache_salt=b"x"))
    writer().check(asked(cache_salt=b"x"))


def test_allowed_tokens_that_are_all_banned_are_refused():
    """There would be nothing to say."""
    with pytest.raises(InvalidRequest, match="banned"):
        writer().check(asked(allowed=frozenset({4}), bad_words=((4,),)))
    with pytest.raises(InvalidRequest, match="banned"):
        writer().check(asked(allowed=frozenset({4}), stop_tokens=frozenset({4}), min_tokens=1))


def test_capabilities_are_all_but_grammars_without_a_tokenizer():
    """What is told to gateways."""
    assert writer().capabilities == frozenset(Capability)
    assert writer(grammars=False).capabilities == frozenset(Capability) - {Capability.GRAMMAR}
