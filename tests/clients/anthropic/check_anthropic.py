"""anthropic: messages whole and streamed, tools, counting, errors."""

import anthropic
import httpx2
import pytest

MODEL = "penstock-tiny"
HI = [{"role": "user", "content": "Hello!"}]
ASK = {"model": MODEL, "messages": HI, "max_tokens": 64}
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
FORCED = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}}
GREEDY = {"temperature": 0}  # the client itself has no name for it any more
ENDS = ("end_turn", "max_tokens", "stop_sequence")


@pytest.fixture(autouse=True)
def _served(needs):
    needs("/messages", messages=HI, max_tokens=1)


def client_of(url):
    root = url.removesuffix("/v1")
    return anthropic.Anthropic(base_url=root, api_key="none", max_retries=0)


@pytest.fixture
def client(url):
    with client_of(url) as client:
        yield client


def test_message(client):
    """A whole answer."""
    answer = client.messages.create(**ASK, system="Be brief.")
    assert answer.role == "assistant"
    assert answer.content[0].type == "text"
    assert answer.content[0].text
    assert answer.stop_reason in ENDS
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0


def test_stream(client):
    """The helper adds the events up to the same text as without streaming."""
    whole = client.messages.create(**ASK, extra_body=GREEDY).content[0].text
    with client.messages.stream(**ASK, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole == final.content[0].text
    assert final.stop_reason in ENDS
    assert final.usage.output_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, needs, stream):
    """A forced call, and its result given back."""
    needs("/messages", messages=HI, max_tokens=1, **FORCED)
    ask = {**ASK, "max_tokens": 200, **FORCED}
    if stream:
        with client.messages.stream(**ask) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**ask)
    call = next(block for block in answer.content if block.type == "tool_use")
    assert call.name == "get_weather"
    assert set(call.input) == {"city"}
    assert answer.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny."}
    again = [
        *HI,
        {"role": "assistant", "content": [block.model_dump() for block in answer.content]},
        {"role": "user", "content": [result]},
    ]
    after = client.messages.create(model=MODEL, messages=again, max_tokens=16, tools=[TOOL])
    assert after.content


def test_count_tokens(client):
    """As many as the answer's usage says."""
    counted = client.messages.count_tokens(model=MODEL, messages=HI).input_tokens
    assert counted == client.messages.create(**ASK).usage.input_tokens


def test_errors(client):
    """Each with its class and type."""
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**ASK, "model": "nope"})
    with pytest.raises(anthropic.BadRequestError) as bad:
        client.messages.create(**{**ASK, "messages": [{"role": "wizard", "content": "x"}]})
    assert bad.value.body["error"]["type"] == "invalid_request_error"


def test_truncated_streams_raise(broken_url):
    """However the server ends."""
    ask = {**ASK, "max_tokens": 200}
    with (
        client_of(broken_url) as client,
        pytest.raises((anthropic.APIError, httpx2.TransportError)),
        client.messages.stream(**ask) as stream,
    ):
        stream.get_final_message()
