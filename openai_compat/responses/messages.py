"""Items to the messages of a chat template.

What the model did in one turn comes as several items: its reasoning, what it said, the functions it
called. Templates want it as one assistant message.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from openai_compat.conversation.ask import Message
from openai_compat.conversation.tools import arguments_object
from openai_compat.errors import RequestRejected
from openai_compat.responses.items import Item

_OURS = frozenset({"message", "function_call", "reasoning"})


def messages_of(items: Sequence[Item], places: Sequence[str]) -> list[Message]:
    """The messages, in order; `places` name each item in refusals.

    Raises `RequestRejected` for the output of a call that is not there.
    """
    messages: list[Message] = []
    called: dict[str, str] = {}
    turn: dict[str, object] | None = None
    for item, place in zip(items, places, strict=True):
        if by_model(item):
            if turn is None or _begins(turn, item):
                turn = {"role": "assistant", "content": ""}
                messages.append(turn)
            _add(turn, item)
            if item["type"] == "function_call":
                called[str(item["call_id"])] = str(item["name"])
            continue
        turn = None
        if item["type"] == "function_call_output":
            messages.append(_output(item, called, place))
        else:
            messages.append({"role": item["role"], "content": text_of(item["content"])})
    return messages


def by_model(item: Item) -> bool:
    """Whether the model wrote the item."""
    return item["type"] in _OURS and item.get("role", "assistant") == "assistant"


def text_of(content: object) -> str:
    """The text of a string or of parts; parts are joined by line breaks."""
    if isinstance(content, str):
        return content
    return "\n".join([str(part["text"]) for part in cast("list[Mapping[str, object]]", content)])


def _begins(turn: Mapping[str, object], item: Item) -> bool:
    """Whether an item cannot belong to the turn that is under way."""
    if item["type"] == "function_call":
        return False
    spoken = bool(turn["content"]) or "tool_calls" in turn
    return spoken or (item["type"] == "reasoning" and "reasoning_content" in turn)


def _add(turn: dict[str, object], item: Item) -> None:
    match item["type"]:
        case "message":
            turn["content"] = text_of(item["content"])
        case "reasoning":
            thought = text_of(item["content"])
            if thought:
                # gpt-oss templates read `thinking`; transformers fills both.
                turn["reasoning_content"] = turn["thinking"] = thought
        case _:
            calls = cast("list[object]", turn.setdefault("tool_calls", []))
            calls.append(_call(item))


def _call(item: Item) -> Message:
    function = {"name": item["name"], "arguments": arguments_object(str(item["arguments"]))}
    return {"id": item["call_id"], "type": "function", "function": function}


def _output(item: Item, called: Mapping[str, str], place: str) -> Message:
    call_id = str(item["call_id"])
    if call_id not in called:
        raise RequestRejected(
            f"'{place}' is the output of a function call that is not in the conversation.",
            param=f"{place}.call_id",
        )
    return {
        "role": "tool",
        "content": text_of(item["output"]),
        "tool_call_id": call_id,
        "name": called[call_id],
    }
