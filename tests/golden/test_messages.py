"""Bytes of Anthropic's dialect, fixed; and every one of them read by Anthropic's own types."""

import json

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from pydantic import TypeAdapter

from tests.golden.messages import HERE, SCENARIOS
from tests.support.messages import events_of

STREAMS = [name for name in SCENARIOS if name.endswith(".sse")]
EVENT = TypeAdapter(RawMessageStreamEvent)
OURS = {"details"}  # the SDK reads it from errors by hand


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_wire_bytes_are_the_golden_ones(name):
    """A change of any byte is a decision, taken by changing the file."""
    assert SCENARIOS[name]() == (HERE / name).read_bytes()


def test_no_golden_file_is_left_over():
    """Every file has its scenario."""
    assert {path.name for path in HERE.iterdir()} == set(SCENARIOS)


def read_by(model, value):
    """Whether a type of the SDK reads a value whole, without a field that it does not know."""
    parsed = model.model_validate(value, strict=True)
    assert extras(parsed) <= OURS
    assert parsed.model_dump(mode="json", exclude_unset=True) == value


def extras(model):
    """Fields that the SDK's types do not know, however deep."""
    if isinstance(model, list):
        return {name for item in model for name in extras(item)}
    if not hasattr(model, "model_fields_set"):
        return set()
    deeper = {name for field in type(model).model_fields for name in extras(getattr(model, field))}
    return deeper | set(model.model_extra or {})


@pytest.mark.parametrize("name", STREAMS)
def test_anthropics_types_read_every_event(name):
    """Parsed and dumped again each is the same; pings and errors are the SDK's own business."""
    for event in events_of((HERE / name).read_bytes()):
        if event["type"] == "error":
            read_by(ErrorResponse, event)
        elif event["type"] != "ping":
            read_by(type(EVENT.validate_python(event)), event)


@pytest.mark.parametrize("name", ["message.json", "message_tools.json"])
def test_anthropics_types_read_every_message(name):
    """As they come in a call that does not stream."""
    read_by(Message, json.loads((HERE / name).read_bytes()))


def test_anthropics_types_read_a_refusal():
    """With the request id."""
    read_by(ErrorResponse, json.loads((HERE / "refusal.json").read_bytes()))
