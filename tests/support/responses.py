"""Responses with less typing: requests, stored ones, and what an event stream adds up to."""

import json

from engines.api import TokenLogprobs
from openai_compat.responses.lower import lower_response
from openai_compat.responses.snapshot import Status
from openai_compat.responses.stored import Key, Past, StoredResponse
from tests.support.messages import PLAIN, events_of, ids
from tests.support.tokenizers import CALL

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place.",
    "parameters": {
        "type": "object",
        "properties": {"q": {"type": "string"}},
        "required": ["q"],
        "additionalProperties": False,
    },
    "strict": False,
}
CALLED = '<tool_call>\n{"name": "get_weather", "arguments": {"q": "the sea"}}\n</tool_call>'
ROUND = f"<think>\nthe sea\n</think>\n\nhello\n\n{CALLED}"


def request(**fields):
    """The body of a short request."""
    return {"model": "tiny", "input": "hello", **fields}


def response(model=PLAIN, /, *, past=None, keeps=True, call=CALL, **fields):
    """Lower it."""
    return lower_response(request(**fields), model, call, past or Past(), keeps=keeps)


def fed(asked, events):
    """The frames of a response that is not ended."""
    frames = [asked.renderer.begin()]
    return b"".join(frames + [asked.renderer.feed(0, event).frames for event in events])


def streamed(asked, events):
    """The whole body of a streamed answer."""
    return fed(asked, events) + asked.renderer.finish()


def folded(asked, events):
    """The response of a call that does not stream."""
    assert fed(asked, events) == b""
    return json.loads(asked.renderer.fold())


def with_logprobs(events):
    """The events with made-up logprobs, two alternatives each."""
    for event in events:
        event.logprobs = [
            TokenLogprobs(-0.25, ((token, -0.25), (ids("é")[0], float("-inf"))))
            for token in event.tokens
        ]
    return events


def added_up(body):
    """The final response of a stream; every delta, part and item is checked to add up to it."""
    events = events_of(body)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    output = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(output)
            output.append({**event["item"], "told": []})
        elif kind == "output_item.done":
            item = output[event["output_index"]]
            assert item.pop("told") in ([], ["part"]), "a part that did not end"
            assert item == {**event["item"], "status": "in_progress"}
            item["status"] = event["item"]["status"]
        elif "output_index" in event:
            _grow(output[event["output_index"]], kind, event)
    final = events[-1]["response"]
    assert final["output"] == output
    return final


def _grow(item, kind, event):
    assert event["item_id"] == item["id"]
    match kind:
        case "content_part.added":
            assert event["content_index"] == len(item["content"])
            item["content"].append(event["part"])
            item["told"].append("part")
        case "output_text.delta":
            item["content"][0]["text"] += event["delta"]
            item["content"][0]["logprobs"] += event["logprobs"]
        case "reasoning_text.delta":
            item["content"][0]["text"] += event["delta"]
        case "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        case "content_part.done":
            assert event["part"] == item["content"][0]
        case "output_text.done":
            part = item["content"][0]
            assert (event["text"], event["logprobs"]) == (part["text"], part["logprobs"])
        case "reasoning_text.done":
            assert event["text"] == item["content"][0]["text"]
        case "function_call_arguments.done":
            assert event["arguments"] == item["arguments"]
        case _:
            raise AssertionError(kind)


def stored(asked, tenant=b""):
    """What is kept of a response as it is now."""
    return StoredResponse(
        Key(tenant, asked.job.id),
        asked.renderer.status,
        asked.renderer.body(),
        asked.input,
        asked.delivery.previous,
        background=asked.delivery.background,
    )


def kept(name="resp_1", *, tenant=b"", status=Status.COMPLETED, size=0, previous=None, events=()):
    """A stored response with no more in it than its size."""
    return StoredResponse(
        Key(tenant, name), status, b"x" * size, b"[]", previous, background=True, events=events
    )
