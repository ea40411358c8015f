"""Any JSON at all: a job the engine can serve, or a refusal that names a field."""

import json
import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_compat.body import parse_body
from openai_compat.chat import schema as chat_schema
from openai_compat.chat.lower import lower_chat
from openai_compat.completions import schema as text_schema
from openai_compat.completions.lower import lower_completion
from openai_compat.context import encode_prompt
from openai_compat.errors import ApiError, ContextLengthExceeded, RequestRejected
from openai_compat.options import requested_model
from tests.support.tokenizers import CALL, byte_level, sentencepiece, served_model

MODEL = served_model()
SMALL = {
    "byte-level": served_model(max_context=40, backend=byte_level()),
    "sentencepiece": served_model(max_context=40, backend=sentencepiece()),
}
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, 2, 16, -1, 0.5, "auto", "text", "user", "none"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.text(max_size=5), st.integers(0, 9).map(str)), inner, max_size=4
        ),
    ),
    max_leaves=6,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "x"])},
    optional={
        "content": st.one_of(
            st.text(max_size=20),
            VALUES,
            st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=5)})),
        ),
        "name": SCALARS,
        "tool_call_id": SCALARS,
        "extra": VALUES,
    },
)


GOOD_CHAT = st.just({"messages": [{"role": "user", "content": "hello"}]})
GOOD_TEXT = st.just({"prompt": ["hello", "world"]})
LIKELY = st.sampled_from([None, 1, 2, 0, 0.5, True, False, "text", ["a"], {"3": 1}, [], {}])


def bodies(known, main):
    names = st.one_of(st.sampled_from(sorted(known)), st.text(max_size=5))
    fields = st.dictionaries(names, st.one_of(LIKELY, VALUES), max_size=3)
    return st.tuples(fields, main).map(lambda parts: {**parts[0], **parts[1], "model": "tiny"})


CHATS = bodies(
    chat_schema.KNOWN,
    GOOD_CHAT
    | st.fixed_dictionaries(
        {}, optional={"messages": st.one_of(st.lists(MESSAGE, min_size=1, max_size=3), VALUES)}
    ),
)
PROMPT = st.one_of(st.text(max_size=9), st.lists(st.integers(-1, 400), max_size=5))
TEXTS = bodies(
    text_schema.KNOWN,
    GOOD_TEXT
    | st.fixed_dictionaries(
        {}, optional={"prompt": st.one_of(PROMPT, st.lists(PROMPT, max_size=3), VALUES)}
    ),
)


def served_or_refused(lower, body, known):
    raw = json.dumps(body).encode("utf-8", "surrogatepass")
    try:
        parsed = parse_body(raw)
        assert requested_model(parsed) == "tiny"
        job = lower(parsed, MODEL, CALL)
    except ApiError as error:
        check_refusal(error, known)
    else:
        check_job(job)


def check_refusal(error, known):
    reply = error.reply
    assert isinstance(error, RequestRejected)
    assert reply.status == 400
    assert reply.param is None or re.split(r"[.\[]", reply.param)[0] in known
    assert len(reply.message) < 400


def check_job(job):
    for request in job.requests:
        sampling = request.sampling
        assert request.prompt
        assert 1 <= sampling.max_tokens <= MODEL.info.max_context - len(request.prompt)
        assert sampling.min_tokens <= sampling.max_tokens
        assert all(0 <= token < MODEL.info.vocab_size for token in request.prompt)
        assert 1 <= request.n <= 8
    assert not set(job.ignored) & {"model", "messages", "prompt"}


@settings(max_examples=500, deadline=None)
@given(CHATS)
def test_any_chat_body_is_served_or_refused(body):
    """Never another exception, never a request the engine would choke on."""
    served_or_refused(lower_chat, body, chat_schema.KNOWN)


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_any_completion_body_is_served_or_refused(body):
    """Never another exception, never a request the engine would choke on."""
    served_or_refused(lower_completion, body, text_schema.KNOWN)


BRACKETED = st.recursive(
    st.one_of(st.text('[]{}"\\\\n', max_size=6), st.integers()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text('[]{}"\\\\', max_size=3), inner, max_size=3),
    ),
    max_leaves=12,
)


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.text('[]{}"\\\\', max_size=3), BRACKETED, max_size=3), st.integers(1, 5))
def test_depth_is_counted_outside_of_strings(body, limit):
    """Refused exactly when the value nests deeper than the limit, whatever its strings hold."""
    raw = json.dumps(body).encode()
    if depth(body) <= limit:
        assert parse_body(raw, max_depth=limit) == body
    else:
        with pytest.raises(RequestRejected, match="nested deeper"):
            parse_body(raw, max_depth=limit)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(raw):
    """Fuzz of the parser: no other exception leaves it."""
    with suppress(RequestRejected):
        assert isinstance(parse_body(raw), dict)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(SMALL)),
    st.lists(st.tuples(st.text("helo wrd é😀\n ", max_size=6), st.integers(1, 400)), max_size=4),
)
def test_counting_slices_refuses_only_what_is_too_long(name, runs):
    """The cheap check never refuses a prompt that the whole count would let through."""
    model = SMALL[name]
    text = "".join(part * times for part, times in runs)
    tokens = model.tokenizer.encode(text, special=True)
    try:
        assert encode_prompt(text, model, special=True, param="prompt") == tokens
    except ContextLengthExceeded:
        assert len(tokens) >= model.info.max_context
