"""Extremes for every field of both routes: refused by name, quickly, and never repeated."""

import time

import pytest

from tests.support.tokenizers import served_model

BIG = served_model(max_context=4096)
VOCAB = BIG.info.vocab_size
LONG = "secret " * 4000

NUMBERS = ["1", "", True, [], [1], {}, {"a": 1}]
EXTREMES = [-(2**63), -(2**31), 2**31, 2**63, 2**64, 10**30, -1e308, 1e308]
INTEGERS = [*NUMBERS, *EXTREMES, 1.5, 0.1]
NOT_TEXT = [1, 1.5, True, [], {}, 2**63]
NOT_FLAGS = [0, 1, "true", [], {}, 1.5]

SAMPLING = {
    "temperature": [*NUMBERS, *EXTREMES, -0.1, 2.1],
    "top_p": [*NUMBERS, *EXTREMES, -1, 0, 1.1],
    "min_p": [*NUMBERS, *EXTREMES, -1, 1.1],
    "top_k": [*INTEGERS, -2, VOCAB + 1],
    "presence_penalty": [*NUMBERS, *EXTREMES, -2.1, 2.1],
    "frequency_penalty": [*NUMBERS, *EXTREMES, -2.1, 2.1],
    "repetition_penalty": [*NUMBERS, *EXTREMES, -1, 0, 10.1],
    "min_tokens": [*INTEGERS, -1, 4096],
    "n": [*INTEGERS, -1, 0, 9],
    "seed": [*NUMBERS, 2**63, -(2**63) - 1, 10**30, 1e308, 1.5],
    "max_tokens": [*INTEGERS, -1, 0, 4096],
    "priority": [*INTEGERS, 101, -101],
    "stop": [1, True, {}, [1], [""], "", ["a"] * 5, "a" * 257, ["é" * 129], [None], [["a"]]],
    "stop_token_ids": [1, "1", {}, [-1], [VOCAB], ["1"], [True], [None], [1.0], [1] * 65],
    "logit_bias": [
        1, "1", [], [1], {"a": 1}, {"-1": 1}, {str(VOCAB): 1}, {"1": 101}, {"1": -101},
        {"1": "1"}, {"1": None}, {"1": True}, {"1.0": 1}, {" 1": 1}, {"": 1}, {"٣": 1},
        {"9" * 5000: 1}, {str(token): 1 for token in range(301)},
    ],
    "stream": NOT_FLAGS,
    "ignore_eos": NOT_FLAGS,
    "stream_options": [1, "a", [], True],
    "user": [*NOT_TEXT, LONG],
}  # fmt: skip

MESSAGES = [
    1, "hi", {}, True, [], [1], ["hi"], [[]], [None], [{}], [{"role": "user"}],
    [{"content": "a"}], [{"role": "alien", "content": "a"}], [{"role": None, "content": "a"}],
    [{"role": 1, "content": "a"}], [{"role": [], "content": "a"}], [{"role": LONG, "content": ""}],
    [{"role": "function", "name": "f", "content": "a"}],
    [{"role": "user", "content": None}], [{"role": "user", "content": 1}],
    [{"role": "user", "content": {}}], [{"role": "user", "content": [1]}],
    [{"role": "user", "content": [{}]}], [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "user", "content": [{"type": "text", "text": 1}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    [{"role": "user", "content": [{"type": "input_audio"}]}],
    [{"role": "user", "content": [{"type": ["text"]}]}],
    [{"role": "user", "content": "a", "name": 1}],
    [{"role": "user", "content": "a", "name": "n" * 65}],
    [{"role": "tool", "content": "a", "tool_call_id": 1}],
    [{"role": "assistant", "tool_calls": [{"id": "1"}]}],
    [{"role": "assistant", "function_call": {"name": "f"}}],
    [{"role": "assistant", "content": "a", "audio": {"id": "x"}}],
    [{"role": "user", "content": LONG}],
    [{"role": "user", "content": "a"}] * 2049,
]  # fmt: skip

CHAT = {
    **SAMPLING,
    "messages": MESSAGES,
    "max_completion_tokens": [*INTEGERS, -1, 0, 4096],
    "logprobs": NOT_FLAGS,
    "top_logprobs": [*INTEGERS, -1, 21, 5],
    "metadata": [1, "a", [], {"a": 1}, {"a": None}, {"k" * 65: "v"}, {"k": "v" * 513},
                 {str(key): "v" for key in range(17)}],
    "prompt_cache_key": [*NOT_TEXT, LONG],
    "safety_identifier": [*NOT_TEXT, LONG],
}  # fmt: skip

COMPLETION = {
    **SAMPLING,
    "prompt": [
        1, True, {}, [], [-1], [VOCAB], [1.0], [True], [None], [2**63], ["a", 1], ["a", [1]],
        [[1], "a"], [[]], [[-1]], [[1], [VOCAB]], ["a"] * 65, [1] * 5000, LONG, ["a", LONG], "",
    ],
    "logprobs": [*INTEGERS, -1, 21],
    "best_of": [*INTEGERS, -1, 0, 21],
    "echo": NOT_FLAGS,
    "suffix": ["tail", 1],
}  # fmt: skip


def rows(table):
    return [
        pytest.param(field, value, id=f"{field}-{place}")
        for field, values in table.items()
        for place, value in enumerate(values)
    ]


def check(reply, field):
    assert 400 <= reply.status < 500
    assert reply.param == field or reply.param.startswith((f"{field}[", f"{field}."))
    assert reply.code
    assert not reply.retryable
    assert len(reply.message) < 400
    assert "secret" not in reply.message
    assert "9999" not in reply.message


@pytest.mark.parametrize(("field", "value"), rows(CHAT))
def test_chat_refuses_by_name(chat, refusal, field, value):
    """A 4xx that names the field and describes what was given."""
    start = time.process_time()
    reply = refusal(chat, model=BIG, **{field: value})
    assert time.process_time() - start < 0.2  # 0.02 s on a quiet machine
    check(reply, field)


@pytest.mark.parametrize(("field", "value"), rows(COMPLETION))
def test_completions_refuse_by_name(complete, refusal, field, value):
    """A 4xx that names the field and describes what was given."""
    start = time.process_time()
    reply = refusal(complete, model=BIG, **{field: value})
    assert time.process_time() - start < 0.2
    check(reply, field)


@pytest.mark.parametrize("field", sorted(set(CHAT) - {"messages"}))
def test_null_is_the_same_as_absent_in_chat(chat, field):
    """As in OpenAI's API: explicit nulls ask for the default."""
    assert chat(**{field: None}).requests == chat().requests


@pytest.mark.parametrize("field", sorted(set(COMPLETION) - {"prompt"}))
def test_null_is_the_same_as_absent_in_completions(complete, field):
    """As in OpenAI's API: explicit nulls ask for the default."""
    assert complete(**{field: None}).requests == complete().requests


def test_a_million_token_ids_are_refused_unread(complete, refusal):
    """The context bounds a prompt before its ids are looked at one by one."""
    prompt = [1] * (1 << 20)
    start = time.process_time()
    reply = refusal(complete, prompt=prompt)
    assert time.process_time() - start < 0.05
    assert (reply.code, reply.param) == ("context_length_exceeded", "prompt")
    assert "prompt is too long" in reply.message  # what langchain-openai looks for


def test_a_huge_prompt_is_refused_in_little_time(chat, refusal):
    """Two million characters cost about what a full context costs."""
    start = time.process_time()
    reply = refusal(chat, messages=[{"role": "user", "content": "hello wörld " * 200_000}])
    assert time.process_time() - start < 0.3
    assert (reply.code, reply.param) == ("context_length_exceeded", "messages")
    assert "prompt is too long" in reply.message  # what langchain-openai looks for
