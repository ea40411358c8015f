"""Bytes of responses, fixed; and every one of them read by OpenAI's own types and helper."""

import json

import httpx2
import openai
import pytest
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from pydantic import TypeAdapter

from tests.golden.response_scenarios import HERE, SCENARIOS
from tests.support.messages import events_of

STREAMS = [name for name in SCENARIOS if name.endswith(".sse")]
BROKEN = {"response_failed.sse", "response_cancelled.sse"}
EVENT = TypeAdapter(ResponseStreamEvent)
TYPES = {
    "response.json": Response,
    "input_items.json": ResponseItemList,
    "input_tokens.json": InputTokenCountResponse,
}
# OpenAI sends them, and its types do not list them: `store`, the bytes of a token in a delta, and
# the error of an error event as it is on the wire.
BEYOND = {"store", "bytes", "error"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_wire_bytes_are_the_golden_ones(name):
    """A change of any byte is a decision, taken by changing the file."""
    assert SCENARIOS[name]() == (HERE / name).read_bytes()


def test_no_golden_file_is_left_over():
    """Every file has its scenario."""
    assert {path.name for path in HERE.iterdir()} == set(SCENARIOS)


def read_by(model, value):
    """A type of the SDK reads a value whole, and knows every field."""
    parsed = model.model_validate(value)
    assert extras(parsed) <= BEYOND
    assert parsed.model_dump(mode="json", exclude_unset=True, by_alias=True) == value


def extras(model):
    """Fields that the SDK's types do not know, however deep."""
    if isinstance(model, list):
        return {name for item in model for name in extras(item)}
    if not hasattr(model, "model_fields_set"):
        return set()
    deeper = {name for field in type(model).model_fields for name in extras(getattr(model, field))}
    return deeper | set(model.model_extra or {})


@pytest.mark.parametrize("name", STREAMS)
def test_openais_types_read_every_event(name):
    """Parsed and dumped again each is the same, and its numbers are dense."""
    events = events_of((HERE / name).read_bytes())
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        read_by(type(EVENT.validate_python(event)), event)


@pytest.mark.parametrize("name", TYPES)
def test_openais_types_read_every_object(name):
    """Parsed and dumped again each is the same."""
    read_by(TYPES[name], json.loads((HERE / name).read_bytes()))


@pytest.fixture
def helper():
    """The SDK's stream helper over one golden file."""
    opened = []

    def serve(name):
        def answer(_request):
            headers = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=headers, content=(HERE / name).read_bytes())

        http = httpx2.Client(transport=httpx2.MockTransport(answer))
        opened.append(
            openai.OpenAI(base_url="http://test/v1", api_key="x", http_client=http, max_retries=0)
        )
        return opened[-1].responses.stream(model="tiny", input="hello")

    yield serve
    for each in opened:
        each.close()


@pytest.mark.parametrize("name", sorted(set(STREAMS) - BROKEN))
def test_the_stream_helper_accumulates(helper, name):
    """It asserts order and identity of items by itself."""
    with helper(name) as stream:
        events = list(stream)
    assert events[-1].type in ("response.completed", "response.incomplete")
    told = events_of((HERE / name).read_bytes())[-1]["response"]
    assert [item.id for item in events[-1].response.output] == [
        item["id"] for item in told["output"]
    ]


@pytest.mark.parametrize(
    ("name", "code"),
    [("response_failed.sse", "engine_died"), ("response_cancelled.sse", "response_cancelled")],
)
def test_a_broken_stream_is_never_taken_for_success(helper, name, code):
    """It raises, also where the connection ended well."""
    with helper(name) as stream, pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == code
