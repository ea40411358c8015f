"""langchain-openai: ChatOpenAI whole and streamed, tools, structured output, errors."""

import httpx
import openai
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

MODEL = "penstock-tiny"


class Pet(BaseModel):
    """A pet."""

    kind: bool
    legs: bool


class GetWeather(BaseModel):
    """The weather of a city."""

    sunny: bool


SCHEMA = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]}
TOOL = {"type": "function", "function": {"name": "GetWeather", "parameters": SCHEMA}}


def chat_of(url, **options):
    usual = {"model": MODEL, "max_tokens": 128, "max_retries": 0, "temperature": 0}
    return ChatOpenAI(base_url=url, api_key="none", **(usual | options))


@pytest.fixture
def chat(url):
    return chat_of(url)


def test_chat(chat):
    """A whole answer with its usage."""
    answer = chat.invoke("Hello!")
    assert answer.content
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["output_tokens"] > 0


def test_stream(chat):
    """The same text; the usage is counted once."""
    whole = chat.invoke("Hello!")
    added = None
    for chunk in chat.stream("Hello!", stream_usage=True):
        added = chunk if added is None else added + chunk
    assert added.content == whole.content
    assert added.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_tools(chat, needs, stream):
    """A required call of a class."""
    messages = [{"role": "user", "content": "Hello!"}]
    needs(
        "/chat/completions", messages=messages, max_tokens=1, tools=[TOOL], tool_choice="required"
    )
    bound = chat.bind_tools([GetWeather], tool_choice="required")
    answer = bound.invoke("Hello!")
    if stream:
        answer = None
        for chunk in bound.stream("Hello!"):
            answer = chunk if answer is None else answer + chunk
    (call, *_) = answer.tool_calls
    assert call["name"] == "GetWeather"
    assert set(call["args"]) == {"sunny"}
    assert call["id"]


def test_schema(chat, needs):
    """with_structured_output gives an instance of the class."""
    messages = [{"role": "user", "content": "Hello!"}]
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA}}
    needs("/chat/completions", messages=messages, max_tokens=1, response_format=form)
    assert isinstance(chat.with_structured_output(Pet).invoke("Hello!"), Pet)


def test_errors(url, chat):
    """An overflow has a class of its own, found by its code."""
    with pytest.raises(openai.NotFoundError):
        chat_of(url, model="nope").invoke("Hello!")
    with pytest.raises(ContextOverflowError):
        chat.invoke("a " * 9000)


def test_truncated_streams_raise(broken_url):
    """However the server ends."""
    with pytest.raises((openai.APIError, httpx.TransportError)):
        for _ in chat_of(broken_url, max_tokens=200).stream("Hello!"):
            pass
