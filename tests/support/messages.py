"""Anthropic messages with less typing: a model that thinks and calls, requests, event streams."""

import json

from engines.api import Finish, FinishReason, TokenEvent
from openai_compat.anthropic.lower import lower_message
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.registry import reasoning_syntaxes, tool_syntaxes
from tests.support.tokenizers import CALL, EOS, served_model

# Repeats everything a conversation can hold, so that prompts can be compared.
FULL = (
    "{% if tools %}[tools{% for t in tools %} {{ t.function.name }}{% endfor %}]\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}"
    "{% if m.role == 'tool' %} {{ m.tool_call_id }} {{ m.name }}{% endif %}{{ '\\n' }}"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}"
    "{% for c in m.tool_calls or [] %}({{ c.id }} {{ c.function.name }}"
    " {{ c.function.arguments.q }}){% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking %}<think>{% endif %}{% endif %}"
)
SYNTAX = ModelSyntax(reasoning_syntaxes()["think"], tool_syntaxes()["hermes"])
PLAIN = served_model()
THINKER = served_model(template=FULL, syntax=SYNTAX)
HELLO = {"role": "user", "content": "hello"}
WEATHER = {
    "name": "get_weather",
    "description": "The weather at a place.",
    "input_schema": {
        "type": "object",
        "properties": {"q": {"type": "string"}},
        "required": ["q"],
        "additionalProperties": False,
    },
}


def request(**fields):
    """The body of a short request."""
    return {"model": "tiny", "max_tokens": 50, "messages": [HELLO], **fields}


def message(model=PLAIN, /, **fields):
    """Lower it."""
    return lower_message(request(**fields), model, CALL)


def prompt_of(job, model=THINKER):
    """The prompt spelled out, special tokens too."""
    return model.tokenizer._backend.decode(list(job.requests[0].prompt), skip_special_tokens=False)


def ids(text):
    """Tokens of a text."""
    return PLAIN.tokenizer.encode(text, special=False)


def token_events(text, *, end="stop", sizes=(1,), cached=3):
    """A text as events of so many tokens each, in turn; `end` is stop, length or None."""
    stop = ids(EOS)
    tokens = [*ids(text), *stop] if end == "stop" else ids(text)
    events, at, turn = [], 0, 0
    while at < len(tokens):
        size = sizes[turn % len(sizes)]
        events.append(TokenEvent(0, tokens[at : at + size], cached))
        at, turn = at + size, turn + 1
    if end == "stop":
        events[-1].finish = Finish(FinishReason.STOP, len(tokens), stop_token=stop[0])
    elif end == "length":
        events = events or [TokenEvent(0, [], cached)]
        events[-1].finish = Finish(FinishReason.LENGTH, len(tokens))
    return events


def streamed(job, events):
    """The whole body of a streamed answer."""
    frames = [job.renderer.begin(), *(job.renderer.feed(0, event).frames for event in events)]
    return b"".join([*frames, job.renderer.finish()])


def folded(job, events):
    """The message of an answer that is not streamed."""
    assert not any(job.renderer.feed(0, event).frames for event in events)
    return json.loads(job.renderer.fold())


def events_of(body):
    """The events of a stream, whose framing and names are checked."""
    *parts, rest = body.decode().split("\n\n")
    assert rest == ""
    events = []
    for part in parts:
        name, data = part.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        events.append(value)
    return events


def added_up(body):
    """The message that a stream adds up to, as the SDK's helper does it but with raw arguments."""
    message, arguments = None, {}
    for event in events_of(body):
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta":
                _add(message["content"][event["index"]], event, arguments)
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    return message, arguments


def _add(block, event, arguments):
    delta, index = event["delta"], event["index"]
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] += delta["signature"]
        case "input_json_delta":
            arguments[index] = arguments.get(index, "") + delta["partial_json"]


def anthropic_error_of(response):
    """The details of a refusal in Anthropic's shape, which is checked: its `code` and `param`."""
    assert response.headers["request-id"] == response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"] == response.headers["request-id"]
    error = body["error"]
    assert set(error) == {"type", "message", "details"}
    assert isinstance(error["message"], str)
    details = error["details"]
    return {**error, "code": details["error_code"], "param": details.get("param")}
