"""openai-python: raw calls, the .stream() and .parse() helpers, sync and async."""

import asyncio
import json

import httpx2
import openai
import pytest
from pydantic import BaseModel

MODEL = "penstock-tiny"
BROKEN = (openai.APIError, httpx2.TransportError)  # told by the server, or cut
HI = [{"role": "user", "content": "Hello!"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
REQUIRED = {"tools": [TOOL], "tool_choice": "required"}


class Pet(BaseModel):
    """A form with an end: strings without a bound may outlast the answer."""

    kind: bool
    legs: bool


SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "pet",
        "strict": True,
        "schema": {**Pet.model_json_schema(), "additionalProperties": False},
    },
}


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def broken(broken_url):
    with openai.OpenAI(base_url=broken_url, api_key="none", max_retries=0) as client:
        yield client


def test_chat(client):
    """A whole answer."""
    answer = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=128)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


def test_stream(client):
    """The same text as without streaming, and the usage last."""
    ask = {"model": MODEL, "messages": HI, "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**ask).choices[0].message.content
    chunks = [
        *client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    ]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].usage.completion_tokens > 0


def test_async_stream(url):
    """The asynchronous client."""

    async def run():
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=HI, max_tokens=16, stream=True
            )
            return [chunk async for chunk in stream]

    chunks = asyncio.run(run())
    assert chunks[-1].choices[0].finish_reason


@pytest.mark.parametrize("n", [1, 2])
def test_stream_helper(client, n):
    """.stream() adds deltas up to the final answer."""
    ask = {"model": MODEL, "messages": HI, "max_tokens": 128, "n": n}
    with client.chat.completions.stream(**ask) as stream:
        texts = ["".join(e.delta for e in stream if e.type == "content.delta")]
        final = stream.get_final_completion()
    assert len(final.choices) == n
    assert final.choices[0].message.role == "assistant"
    if n == 1:
        assert [final.choices[0].message.content] == texts


def test_async_stream_helper(url):
    """.stream() of the asynchronous client."""

    async def run():
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            manager = client.chat.completions.stream(model=MODEL, messages=HI, max_tokens=128)
            async with manager as stream:
                return await stream.get_final_completion()

    assert asyncio.run(run()).choices[0].message.content


def test_completion(client):
    """Text completions, streamed."""
    ask = {"model": MODEL, "prompt": "Once", "max_tokens": 8, "stream": True}
    chunks = [*client.completions.create(**ask)]
    assert "".join(chunk.choices[0].text for chunk in chunks)


def test_models(client):
    """Listed, and one by one."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, needs, stream):
    """A required call: id, name, and arguments that are JSON."""
    needs("/chat/completions", messages=HI, max_tokens=1, **REQUIRED)
    ask = {"model": MODEL, "messages": HI, "max_tokens": 200, **REQUIRED}
    if stream:
        with client.chat.completions.stream(**ask) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(**ask).choices[0].message
    (call, *_) = message.tool_calls
    assert call.id
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
    again = [*HI, message.model_dump(exclude_none=True, exclude={"parsed"}), result]
    for part in again[1]["tool_calls"]:
        part["function"].pop("parsed_arguments", None)
    answer = client.chat.completions.create(
        model=MODEL, messages=again, tools=[TOOL], tool_choice="none", max_tokens=8
    )
    assert answer.choices[0].message.content is not None


def test_schema(client, needs):
    """.parse() gives an instance of the class."""
    needs("/chat/completions", messages=HI, max_tokens=1, response_format=SCHEMA)
    ask = {"model": MODEL, "messages": HI, "max_tokens": 200}
    answer = client.chat.completions.parse(**ask, response_format=Pet)
    assert isinstance(answer.choices[0].message.parsed, Pet)
    with client.chat.completions.stream(**ask, response_format=Pet) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Pet)


def test_errors(client):
    """Each with its class, code, param and request id."""
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nope", messages=HI)
    assert unknown.value.code == "model_not_found"
    assert unknown.value.request_id
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, messages=HI, n=1000)
    assert bad.value.param == "n"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "a " * 9000}]
        )
    assert long.value.code == "context_length_exceeded"


def raw(client, **ask):
    for _ in client.chat.completions.create(**ask, stream=True):
        pass


def helped(client, **ask):
    with client.chat.completions.stream(**ask) as stream:
        stream.get_final_completion()


@pytest.mark.parametrize("read", [raw, helped])
def test_truncated_streams_raise(broken, read):
    """However the server ends."""
    with pytest.raises(BROKEN):
        read(broken, model=MODEL, messages=HI, max_tokens=200)


def test_responses(client, needs):
    """The Responses API, whole and streamed."""
    needs("/responses", input="Hi", max_output_tokens=16)
    answer = client.responses.create(model=MODEL, input="Hi", max_output_tokens=32)
    assert answer.output_text
    with client.responses.stream(model=MODEL, input="Hi", max_output_tokens=32) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert final.output_text


def test_responses_truncated(broken, needs):
    """A stream of events that ends early raises."""
    needs("/responses", input="Hi", max_output_tokens=16)
    with pytest.raises(BROKEN):
        for _ in broken.responses.create(model=MODEL, input="Hi", stream=True):
            pass


def test_embeddings(client, needs):
    """Base64 is what this client asks for."""
    needs("/embeddings", input="Hi")
    vector = client.embeddings.create(model=MODEL, input=["Hi", "Ho"]).data[1].embedding
    assert all(isinstance(number, float) for number in vector)
