"""llama-index openai-like: chat and completion whole and streamed, tools, structured output."""

import httpx
import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

MODEL = "penstock-tiny"
HI = [ChatMessage(role="user", content="Hello!")]
WIRE = [{"role": "user", "content": "Hello!"}]


class Pet(BaseModel):
    """A pet."""

    kind: bool
    legs: bool


def get_weather(*, sunny: bool) -> str:
    """The weather as it is wished for."""
    return "Sunny." if sunny else "Rain."


def model_of(url, **options):
    return OpenAILike(
        model=MODEL,
        api_base=url,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        max_tokens=128,
        temperature=0,
        max_retries=0,
        context_window=2048,
        **options,
    )


@pytest.fixture
def model(url):
    return model_of(url)


def test_chat(model):
    """A whole answer."""
    assert model.chat(HI).message.content


def test_stream(model):
    """The same text, piece by piece."""
    pieces = [*model.stream_chat(HI)]
    assert "".join(piece.delta or "" for piece in pieces) == model.chat(HI).message.content


def test_complete(url):
    """The completions route."""
    assert model_of(url).complete("Once").text
    assert "".join(piece.delta or "" for piece in model_of(url).stream_complete("Once"))


def test_tools(model, needs):
    """A required call."""
    tool = FunctionTool.from_defaults(get_weather)
    wire = [{"type": "function", "function": {"name": "get_weather"}}]
    needs("/chat/completions", messages=WIRE, max_tokens=1, tools=wire, tool_choice="required")
    answer = model.chat_with_tools([tool], user_msg="Hello!", tool_required=True)
    (call, *_) = model.get_tool_calls_from_response(answer)
    assert call.tool_name == "get_weather"
    assert set(call.tool_kwargs) == {"sunny"}


def test_schema(url, needs):
    """structured_predict gives an instance of the class."""
    form = {
        "type": "json_schema",
        "json_schema": {"name": "pet", "schema": Pet.model_json_schema()},
    }
    needs("/chat/completions", messages=WIRE, max_tokens=1, response_format=form)
    structured = model_of(url, should_use_structured_outputs=True).as_structured_llm(Pet)
    assert isinstance(structured.chat(HI).raw, Pet)


def test_errors(model):
    """As the classes of openai-python."""
    with pytest.raises(openai.BadRequestError) as long:
        model.chat([ChatMessage(role="user", content="a " * 9000)])
    assert long.value.code == "context_length_exceeded"


def test_truncated_streams_raise(broken_url):
    """However the server ends."""
    with pytest.raises((openai.APIError, httpx.TransportError)):
        for _ in model_of(broken_url).stream_chat(HI):
            pass
