"""Any JSON at all: a response the engine can serve and that can be kept, or a refusal by name."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_compat.errors import ApiError, ContextLengthExceeded
from openai_compat.responses import schema
from openai_compat.responses.lower import lower_response
from openai_compat.responses.stored import Past, referred_ids
from tests.support.messages import THINKER, token_events
from tests.support.responses import ROUND, WEATHER, folded, response, stored
from tests.support.tokenizers import CALL, served_model

SMALL = served_model(max_context=120)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, 2, -1, 0.5, "auto", "message", "function_call", "user", "none"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=6,
)
KINDS = st.sampled_from(
    ["message", "function_call", "function_call_output", "reasoning", "item_reference", None, "x"]
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                ["input_text", "output_text", "text", "reasoning_text", "summary_text", "refusal"]
            )
        },
        optional={"text": SCALARS, "annotations": VALUES},
    ),
    max_size=3,
)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "type": KINDS,
        "role": st.sampled_from(["user", "assistant", "system", "developer", "x"]),
        "id": st.sampled_from(["msg_abc123_0", "rs_1", "", 5]),
        "content": PARTS | VALUES,
        "summary": PARTS,
        "call_id": st.sampled_from(["c1", "c2", 5]),
        "name": st.sampled_from(["f", "", 5]),
        "arguments": st.sampled_from(["{}", "{", "[1]", "", '{"a": 1}', 5]),
        "output": PARTS | SCALARS,
        "extra": VALUES,
    },
)
NAMES = st.sampled_from(sorted(schema.KNOWN)) | st.text(max_size=5)
FIELDS = st.dictionaries(NAMES, VALUES, max_size=3)
INPUTS = st.text(max_size=9) | st.lists(ITEMS, max_size=4) | VALUES
TOOLS = st.lists(st.just(WEATHER) | VALUES, max_size=2)
BODIES = st.fixed_dictionaries({"input": INPUTS}, optional={"tools": TOOLS, "tool_choice": VALUES})


def before():
    asked = response(THINKER, tools=[WEATHER])
    folded(asked, token_events(ROUND))
    return stored(asked)


BEFORE = before()


def lowered(body, past):
    try:
        return lower_response(body, THINKER, CALL, past, keeps=True), None
    except ApiError as error:
        return None, error.reply


@settings(max_examples=500, deadline=None)
@given(FIELDS, BODIES, st.booleans())
def test_any_body_is_served_or_refused_by_name(fields, body, continued):
    """Nothing else is raised, and what is served can be told, kept and gone on from."""
    body = {**fields, **body, "model": "tiny"}
    referred_ids(body)
    past = Past((BEFORE,) if continued else (), (BEFORE,))
    asked, refusal = lowered(body, past)
    if asked is None:
        assert refusal.status in (400, 404)
        assert refusal.param
        return
    request = asked.job.requests[0]
    assert 0 < len(request.prompt) + request.sampling.max_tokens <= 512
    assert json.loads(asked.renderer.body())["id"] == "resp_abc123"
    items = Past((stored(asked),)).items()
    assert {"id", "type", "status"} <= items[0].keys()


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 20))
def test_truncation_keeps_as_many_of_the_last_turns_as_fit(lengths, asked_tokens):
    """What is served fits, and one turn more would not have."""
    turns = [{"role": "user", "content": "hello " * length} for length in lengths]
    fields = {"max_output_tokens": asked_tokens}

    def fits(first):
        try:
            response(SMALL, input=turns[first:], **fields)
        except ContextLengthExceeded:
            return False
        return True

    first = next((place for place in range(len(turns)) if fits(place)), None)
    if first is None:
        with pytest.raises(ContextLengthExceeded):
            response(SMALL, input=turns, truncation="auto", **fields)
        return
    cut = response(SMALL, input=turns, truncation="auto", **fields).job.requests[0].prompt
    assert cut == response(SMALL, input=turns[first:], **fields).job.requests[0].prompt
