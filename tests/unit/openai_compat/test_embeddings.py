"""Embedding requests: every form of input, every field, every cap; and the answers."""

import base64
import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from openai_compat.embeddings.lower import lower_embeddings
from openai_compat.embeddings.schema import ACTED_ON, KNOWN, MAX_INPUTS, UNSUPPORTED
from openai_compat.errors import ContextLengthExceeded, RequestRejected
from openai_compat.texts import MAX_CALL_TOKENS
from tests.support.tokenizers import served_model
from tests.support.vector_models import CALL, PROMPTS, SIZE, cross_encoder, vector_model
from tests.support.words import CLS, SEP

MODEL = vector_model()


def lower(given="w5 w6", model=MODEL, **fields):
    return lower_embeddings({"model": "tiny", "input": given, **fields}, model, CALL)


def prompts_of(job):
    return [list(request.prompt) for request in job.requests]


def refusal(*args, **fields):
    with pytest.raises(RequestRejected) as caught:
        lower(*args, **fields)
    return caught.value.reply


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        ("w5 w6", [[CLS, 5, 6, SEP]]),
        (["w5", "w6 w7"], [[CLS, 5, SEP], [CLS, 6, 7, SEP]]),
        ([5, 6], [[5, 6]]),
        ([[5], [6, 7]], [[5], [6, 7]]),
        ("", [[CLS, SEP]]),
    ],
    ids=["text", "texts", "ids", "ids-of-many", "empty"],
)
def test_every_form_of_input_becomes_prompts(given, tokens):
    """Texts get the tokenizer's special tokens, ids are taken as they are."""
    job = lower(given)
    assert prompts_of(job) == tokens
    assert job.prompt_tokens == sum(map(len, tokens))
    assert len({request.id for request in job.requests}) == len(tokens)
    assert {request.cache_salt for request in job.requests} == {b"salt"}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "input"),
        ([], "input"),
        (7, "input"),
        ({"text": "w5"}, "input"),
        ([["w5"]], "input[0][0]"),
        ([5, "w5"], "input[1]"),
        (["w5", 5], "input[1]"),
        (["w5", None], "input[1]"),
        ([[5], "w5"], "input[1]"),
        ([True], "input[0]"),
        ([-1], "input[0]"),
        ([5, 512], "input[1]"),
        ([[5], [6, 5.0]], "input[1][1]"),
        ([[5], []], "input[1]"),
        (["w5"] * (MAX_INPUTS + 1), "input"),
    ],
)
def test_other_inputs_are_refused_by_place(given, param):
    """400 naming what is wrong, without repeating it."""
    reply = refusal(given)
    assert (reply.status, reply.param) == (400, param)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("w5 " * 11, "input"),
        (["w5", "w5 " * 11], "input[1]"),
        ([5] * 13, "input"),
        ([[5], [5] * 13], "input[1]"),
    ],
)
def test_a_text_that_is_too_long_is_refused(given, param):
    """Never cut silently: context_length_exceeded with numbers."""
    reply = refusal(given)
    assert (reply.code, reply.param) == ("context_length_exceeded", param)
    assert "12" in reply.message
    assert "13" in reply.message


def test_a_text_may_fill_the_context():
    """There is no token to leave room for."""
    assert prompts_of(lower("w5 " * 10)) == [[CLS, *[5] * 10, SEP]]


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"truncate_prompt_tokens": 5}, [CLS, 4, 5, 6, SEP]),
        ({"truncate_prompt_tokens": 5, "truncation_side": "left"}, [CLS, 21, 22, 23, SEP]),
        ({"truncate_prompt_tokens": -1}, [CLS, *range(4, 14), SEP]),
        ({"truncate_prompt_tokens": 5, "add_special_tokens": False}, [4, 5, 6, 7, 8]),
        ({"truncate_prompt_tokens": 2}, [CLS, SEP]),
    ],
)
def test_a_text_is_cut_where_that_is_asked_for(fields, tokens):
    """Special tokens stay, as transformers' own truncation leaves them."""
    text = " ".join(f"w{i}" for i in range(4, 24))
    assert prompts_of(lower(text, **fields)) == [tokens]


def test_token_ids_are_cut_as_they_are():
    """None of them is special to us."""
    ids = list(range(4, 24))
    assert prompts_of(lower(ids, truncate_prompt_tokens=3)) == [[4, 5, 6]]
    assert prompts_of(lower(ids, truncate_prompt_tokens=3, truncation_side="left")) == [
        [21, 22, 23]
    ]


def test_the_tokens_of_one_call_are_capped():
    """Texts and ids alike; the message says both numbers."""
    wide = vector_model(context=1000)
    assert lower([[5] * 1000] * 300, wide).prompt_tokens == MAX_CALL_TOKENS
    for given in ([[5] * 1000] * 300 + [[5]], ["w5 " * 998] * 300 + ["w5"]):
        reply = refusal(given, wide)
        assert reply.code == "too_many_tokens"
        assert str(MAX_CALL_TOKENS) in reply.message


# Each field: a value that works, and values that are refused under its name.
FIELDS = {
    "add_special_tokens": ([True, False], ["yes", 1]),
    "dimensions": ([1, SIZE], [0, SIZE + 1, 1.5, "8", True]),
    "encoding_format": (["float", "base64"], ["int8", 1, ""]),
    "priority": ([-100, 0, 100], [101, 1.0]),
    "prompt_name": (["query", "plain"], ["other", 3]),
    "truncate_prompt_tokens": ([-1, 2, 12], [0, -2, 13, 2.0, "2"]),
    "truncation_side": (["left", "right"], ["middle", 1]),
    "user": (["me"], ["x" * 513, 7]),
    "cache_salt": ([], ["mine"]),
    "embed_dtype": (["float32"], ["float16"]),
    "endianness": (["native", "little"], ["big"]),
    "input_type": ([], ["query"]),
    "messages": ([], [[{"role": "user", "content": "hi"}]]),
    "mm_processor_kwargs": ([{}], [{"a": 1}]),
    "normalize": ([], [False]),
    "padding": (["do_not_pad"], ["max_length"]),
    "task": ([], ["retrieval.query"]),
    "use_activation": ([True], [False]),
}
WORKS = [(name, value) for name, (good, _) in FIELDS.items() for value in [*good, None]]
REFUSED = [(name, value) for name, (_, bad) in FIELDS.items() for value in bad]


def test_every_known_field_has_a_row():
    """A field cannot be added without saying what it takes."""
    assert FIELDS.keys() | {"input", "model"} == KNOWN
    assert ACTED_ON.isdisjoint(UNSUPPORTED)


@pytest.mark.parametrize(("name", "value"), WORKS)
def test_a_field_works(name, value):
    """Nothing known is reported as ignored."""
    assert lower(model=vector_model(prompts=PROMPTS), **{name: value}).ignored == ()


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_field_is_refused_by_name(name, value):
    """400 naming the field."""
    reply = refusal(model=vector_model(prompts=PROMPTS), **{name: value})
    assert (reply.status, reply.param) == (400, name)


def test_unknown_fields_are_told():
    """They become x-ignored-params."""
    assert lower(colour="blue").ignored == ("colour",)


def test_a_prompt_goes_before_texts_and_not_before_ids():
    """The one asked for, else the model's default, else none."""
    model = vector_model(prompts=PROMPTS)
    assert prompts_of(lower("w5", model)) == [[CLS, 5, SEP]]
    assert prompts_of(lower("w5", model, prompt_name="query")) == [[CLS, 100, 5, SEP]]
    assert prompts_of(lower([5], model, prompt_name="query")) == [[5]]
    eager = vector_model(prompts=replace(PROMPTS, default="document"))
    assert prompts_of(lower("w5", eager)) == [[CLS, 200, 5, SEP]]
    assert prompts_of(lower("w5", eager, prompt_name="plain")) == [[CLS, 5, SEP]]


def test_texts_are_put_in_lower_case_where_the_model_wants_it():
    """do_lower_case of its sentence-transformers settings."""
    model = vector_model(prompts=replace(PROMPTS, lower=True))
    assert prompts_of(lower("W5", model)) == [[CLS, 5, SEP]]


@pytest.mark.parametrize("model", [cross_encoder(), served_model()], ids=["ranks", "neither"])
def test_a_model_without_embeddings_says_so(model):
    """400 model_does_not_embed."""
    reply = refusal(model=model)
    assert (reply.status, reply.code, reply.param) == (400, "model_does_not_embed", "model")


def answer(vectors, **fields):
    return json.loads(lower(["w5"] * len(vectors), **fields).answer(vectors))


VECTORS = [np.arange(1, SIZE + 1, dtype="f4") / k for k in (3, 7)]


def test_the_answer_is_openais():
    """Keys in order, vectors in the order of the inputs, usage without completions."""
    body = answer(VECTORS)
    assert [*body] == ["object", "data", "model", "usage"]
    assert body["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    for index, (entry, vector) in enumerate(zip(body["data"], VECTORS, strict=True)):
        assert [*entry] == ["object", "index", "embedding"]
        assert (entry["object"], entry["index"]) == ("embedding", index)
        assert np.array_equal(np.array(entry["embedding"], "f4"), vector)


def test_base64_is_little_endian_float32():
    """Bit for bit what the numbers are."""
    for entry, vector in zip(
        answer(VECTORS, encoding_format="base64")["data"], VECTORS, strict=True
    ):
        raw = base64.b64decode(entry["embedding"], validate=True)
        assert struct.unpack(f"<{SIZE}f", raw) == tuple(vector.tolist())


@pytest.mark.parametrize("form", ["float", "base64"])
def test_dimensions_shorten_and_keep_the_length(form):
    """A shortened vector of a model of length 1 is of length 1; another's is cut alone."""
    for normalised in (True, False):
        model = vector_model(normalised=normalised)
        (entry,) = answer(VECTORS[:1], dimensions=3, encoding_format=form, model=model)["data"]
        told = entry["embedding"]
        if form == "base64":
            told = np.frombuffer(base64.b64decode(told), "<f4")
        part = VECTORS[0][:3]
        expected = part / np.linalg.norm(part) if normalised else part
        assert np.allclose(told, expected, atol=1e-7)


def test_a_vector_of_nothing_is_not_divided_by_its_length():
    """Zeros stay zeros."""
    (entry,) = answer([np.zeros(SIZE, "f4")], dimensions=2)["data"]
    assert entry["embedding"] == [0, 0]


def test_the_name_of_a_model_is_the_one_asked_for():
    """Clients compare."""
    job = lower_embeddings({"model": "alias", "input": "w5"}, MODEL, CALL)
    assert json.loads(job.answer(VECTORS[:1]))["model"] == "alias"


def test_too_long_is_the_error_that_clients_look_for():
    """A subclass of its own, as for chats."""
    with pytest.raises(ContextLengthExceeded):
        lower("w5 " * 11)
