"""Tokenize, detokenize and render: round trips, fields, refusals."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_compat.chat.lower import lower_chat
from openai_compat.errors import RequestRejected
from openai_compat.texts import MAX_CALL_TOKENS
from openai_compat.tokens.lower import detokenize, render_chat, tokenize
from tests.support.tokenizers import CALL, CHATML, served_model
from tests.support.vector_models import vector_model
from tests.support.words import CLS, SEP

MODEL = served_model()
WORDS = vector_model()
HELLO = [{"role": "user", "content": "hello"}]
CHAT_TEXT = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def call(make, model=MODEL, **fields):
    prepared = make({"model": "tiny", **fields}, model, CALL)
    return json.loads(prepared.body), prepared.ignored


def refusal(make, **fields):
    with pytest.raises(RequestRejected) as caught:
        call(make, **fields)
    return caught.value.reply


@given(text=st.text(max_size=300))
def test_a_text_comes_back_from_its_tokens(text):
    """A byte-level tokenizer loses nothing."""
    told, _ = call(tokenize, prompt=text, add_special_tokens=False)
    assert told["count"] == len(told["tokens"])
    assert call(detokenize, tokens=told["tokens"])[0] == {"prompt": text}


def test_the_answer_is_vllms():
    """Count, context, tokens, and pieces only where asked for."""
    told, ignored = call(tokenize, WORDS, prompt="w5 w6")
    assert told == {"count": 4, "max_model_len": 12, "tokens": [CLS, 5, 6, SEP], "token_strs": None}
    assert ignored == ()
    told, _ = call(tokenize, WORDS, prompt="w5 w6", return_token_strs=True)
    assert told["token_strs"] == ["[CLS]", "w5", "w6", "[SEP]"]


def test_special_tokens_are_added_to_texts_unless_unwanted():
    """And spelled out on the way back."""
    assert call(tokenize, WORDS, prompt="w5", add_special_tokens=False)[0]["tokens"] == [5]
    assert call(detokenize, WORDS, tokens=[CLS, 5, SEP])[0] == {"prompt": "[CLS] w5 [SEP]"}


def test_a_text_may_be_longer_than_the_context():
    """Counting is what the route is for."""
    assert call(tokenize, WORDS, prompt="w5 " * 500)[0]["count"] == 502


def test_a_conversation_has_the_tokens_of_its_chat():
    """The same template, tools and all, and no special tokens beside its own."""
    body = {"model": "tiny", "messages": HELLO}
    chat = lower_chat(body, MODEL, CALL)
    told, ignored = call(tokenize, messages=HELLO)
    assert tuple(told["tokens"]) == chat.requests[0].prompt
    assert ignored == ()
    assert call(detokenize, tokens=told["tokens"])[0]["prompt"] == CHAT_TEXT
    closed, _ = call(tokenize, messages=HELLO, add_generation_prompt=False)
    assert closed["count"] < told["count"]


def test_tools_are_part_of_a_prompt():
    """Templates list them."""
    model = served_model(template="{{ tools | tojson if tools else '' }}" + CHATML)
    plain, _ = call(tokenize, model, messages=HELLO)
    with_tools, _ = call(tokenize, model, messages=HELLO, tools=[TOOL])
    assert with_tools["count"] > plain["count"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": "a", "messages": HELLO}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ({"prompt": "a", "add_special_tokens": 1}, "add_special_tokens"),
        ({"prompt": "a", "return_token_strs": "yes"}, "return_token_strs"),
        ({"messages": HELLO, "chat_template": "{{ x }}"}, "chat_template"),
        ({"messages": HELLO, "documents": [{"text": "a"}]}, "documents"),
        ({"messages": HELLO, "media_io_kwargs": {"a": 1}}, "media_io_kwargs"),
        ({"messages": HELLO, "mm_processor_kwargs": {"a": 1}}, "mm_processor_kwargs"),
        ({"messages": HELLO, "continue_final_message": True}, "continue_final_message"),
        ({"messages": HELLO, "chat_template_kwargs": {"nope": 1}}, "chat_template_kwargs.nope"),
        ({"messages": HELLO, "tools": [7]}, "tools[0]"),
    ],
)
def test_what_cannot_be_tokenized_is_refused_by_name(fields, param):
    """400 naming the field."""
    reply = refusal(tokenize, **fields)
    assert (reply.status, reply.param) == (400, param)


@pytest.mark.parametrize(
    ("tokens", "param"),
    [
        (None, "tokens"),
        ("5", "tokens"),
        ([5.0], "tokens[0]"),
        ([5, -1], "tokens[1]"),
        ([10**9], "tokens[0]"),
        ([True], "tokens[0]"),
        ([5] * (MAX_CALL_TOKENS + 1), "tokens"),
    ],
)
def test_what_is_no_token_is_refused_by_place(tokens, param):
    """400 naming the place."""
    reply = refusal(detokenize, tokens=tokens)
    assert (reply.status, reply.param) == (400, param)


def test_a_render_is_what_the_chat_would_run():
    """Prompt, tokens and counts; nothing of it depends on sampling."""
    fields = {"messages": HELLO, "max_tokens": 5, "temperature": 0.5}
    told, ignored = call(render_chat, **fields)
    chat = lower_chat({"model": "tiny", **fields}, MODEL, CALL)
    assert told == {
        "object": "chat.completion.prompt",
        "model": "tiny",
        "prompt": CHAT_TEXT,
        "token_ids": list(chat.requests[0].prompt),
        "count": len(chat.requests[0].prompt),
        "max_model_len": 512,
    }
    assert ignored == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": HELLO, "temperature": 9}, "temperature"),
        ({"messages": HELLO, "max_tokens": 5000}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "hello " * 600}]}, "messages"),
    ],
)
def test_a_render_is_refused_where_the_chat_would_be(fields, param):
    """So that a rendered request is one that runs."""
    assert refusal(render_chat, **fields).param == param


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (tokenize, {"prompt": "a"}),
        (tokenize, {"messages": HELLO}),
        (detokenize, {"tokens": [5]}),
        (render_chat, {"messages": HELLO}),
    ],
)
def test_unknown_fields_are_told(make, fields):
    """They become x-ignored-params."""
    assert call(make, colour="blue", **fields)[1] == ("colour",)
