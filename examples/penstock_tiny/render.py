"""Render samples as ChatML, telling what the assistant writes from what it reads.

`chat_template.jinja` is the public form of the same layout; `evaluate.py --check` compares both.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from skills.tools import render_calls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skills.base import Message, Sample

END_OF_TEXT = "<|endoftext|>"
_TOOLS_HEAD = "# Tools\n\nYou may call these functions:\n<tools>"
_TOOLS_TAIL = (
    "\n</tools>\n\nFor each call, write a JSON object with its name and arguments:\n<tool_call>\n"
    '{"name": <name>, "arguments": <object>}\n</tool_call><|im_end|>\n'
)

Segment = tuple[str, bool]


def _head(sample: Sample) -> tuple[str, list[Message]]:
    """Return the text of the system turn and the messages after it."""
    rest, said = sample.messages, ""
    if rest and rest[0]["role"] == "system":
        said, rest = rest[0]["content"], rest[1:]
    if sample.tools:
        lines = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in sample.tools)
        lead = f"{said}\n\n" if said else ""
        return f"<|im_start|>system\n{lead}{_TOOLS_HEAD}{lines}{_TOOLS_TAIL}", rest
    return (f"<|im_start|>system\n{said}<|im_end|>\n" if said else ""), rest


def segments(sample: Sample) -> Iterator[Segment]:
    """Yield (text, learnt): True for the text that the model itself has to write."""
    if sample.text:
        yield sample.text + END_OF_TEXT, True
        return
    head, rest = _head(sample)
    if head:
        yield head, False
    previous = ""
    for index, message in enumerate(rest):
        role = message["role"]
        if role == "tool":
            following = rest[index + 1]["role"] if index + 1 < len(rest) else ""
            opening = "" if previous == "tool" else "<|im_start|>user"
            closing = "" if following == "tool" else "<|im_end|>\n"
            body = f"\n<tool_response>\n{message['content']}\n</tool_response>"
            yield opening + body + closing, False
        elif role == "assistant":
            yield "<|im_start|>assistant\n", False
            written = render_calls(message) if "tool_calls" in message else message["content"]
            yield written + "<|im_end|>", True
            yield "\n", False
        else:
            yield f"<|im_start|>{role}\n{message['content']}<|im_end|>\n", False
        previous = role
    yield END_OF_TEXT, False


def render_text(sample: Sample) -> str:
    """Return a sample as one string."""
    return "".join(text for text, _ in segments(sample))
