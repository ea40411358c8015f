"""haystack-ai: the chat generator whole and streamed, tools, structured output, errors."""

import httpx
import openai
import pytest
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack.utils import Secret
from pydantic import BaseModel

MODEL = "penstock-tiny"
HI = [ChatMessage.from_user("Hello!")]
WIRE = [{"role": "user", "content": "Hello!"}]
SCHEMA = {
    "type": "object",
    "properties": {"sunny": {"type": "boolean"}},
    "required": ["sunny"],
    "additionalProperties": False,
}


class Pet(BaseModel):
    """A pet."""

    kind: bool
    legs: bool


def generator(url, *, streaming=None, **more):
    return OpenAIChatGenerator(
        model=MODEL,
        api_base_url=url,
        api_key=Secret.from_token("none"),
        max_retries=0,
        streaming_callback=streaming,
        generation_kwargs={"max_tokens": 128, "temperature": 0, **more},
    )


def test_chat(url):
    """A whole answer with its usage."""
    (reply,) = generator(url).run(HI)["replies"]
    assert reply.text
    assert reply.meta["finish_reason"] == "stop"
    assert reply.meta["usage"]["completion_tokens"] > 0


def test_stream(url):
    """The same text, piece by piece."""
    pieces = []
    (streamed,) = generator(url, streaming=pieces.append).run(HI)["replies"]
    (whole,) = generator(url).run(HI)["replies"]
    assert "".join(piece.content for piece in pieces) == streamed.text == whole.text


@pytest.mark.parametrize("stream", [False, True])
def test_tools(url, needs, stream):
    """A required call."""
    wire = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    needs("/chat/completions", messages=WIRE, max_tokens=1, tools=wire, tool_choice="required")
    tool = Tool(name="weather", description="", parameters=SCHEMA, function=str)
    callback = (lambda _: None) if stream else None
    asked = generator(url, streaming=callback, tool_choice="required")
    (reply,) = asked.run(HI, tools=[tool])["replies"]
    (call, *_) = reply.tool_calls
    assert call.tool_name == "weather"
    assert set(call.arguments) == {"sunny"}


def test_schema(url, needs):
    """A class as the response format."""
    form = {
        "type": "json_schema",
        "json_schema": {"name": "pet", "schema": Pet.model_json_schema()},
    }
    needs("/chat/completions", messages=WIRE, max_tokens=1, response_format=form)
    (reply,) = generator(url, response_format=Pet).run(HI)["replies"]
    Pet.model_validate_json(reply.text)


def test_errors(url):
    """As the classes of openai-python."""
    with pytest.raises(openai.BadRequestError) as long:
        generator(url).run([ChatMessage.from_user("a " * 9000)])
    assert long.value.code == "context_length_exceeded"


def test_truncated_streams_raise(broken_url):
    """However the server ends."""
    with pytest.raises((openai.APIError, httpx.TransportError)):
        generator(broken_url, streaming=lambda _: None).run(HI)
