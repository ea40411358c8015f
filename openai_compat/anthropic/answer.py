"""The message object: content blocks folded from their steps, why it ended, and its usage."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from openai_compat.anthropic.blocks import Begin, End, Kind, More, Step
from openai_compat.job import Usage

INVALID_JSON = "INVALID_JSON"  # the key under which Anthropic's own guide puts broken arguments


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a message ended; None while it runs. `sequence` is the stop sequence that did it."""

    reason: str | None
    sequence: str | None


@dataclass(frozen=True, slots=True)
class Head:
    """What every form of one message begins with."""

    id: str
    model: str  # the name that the client used, which may be an alias

    def message(
        self, content: Sequence[dict[str, object]], closing: Closing, usage: Usage
    ) -> dict[str, object]:
        """The message object."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": closing.reason,
            "stop_sequence": closing.sequence,
            "usage": {**usage_object(usage), "service_tier": "standard"},
        }


def usage_object(usage: Usage) -> dict[str, object]:
    """Anthropic's counts: the parts of the prompt add up, they do not contain each other.

    Nothing is ever charged for writing the cache, which keeps every prompt by itself.
    """
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def content_blocks(steps: Iterable[Step]) -> list[dict[str, object]]:
    """The blocks that these steps make, in order."""
    begun: list[tuple[Begin, list[str]]] = []
    signatures: dict[int, str] = {}
    for step in steps:
        match step:
            case Begin():
                begun.append((step, []))
            case More(text):
                begun[-1][1].append(text)
            case End(index, signature):
                signatures[index] = signature or ""
    return [_block(begin, "".join(texts), signatures[begin.index]) for begin, texts in begun]


def _block(begin: Begin, text: str, signature: str) -> dict[str, object]:
    match begin.kind:
        case Kind.TEXT:
            return {"type": Kind.TEXT, "text": text}
        case Kind.THINKING:
            return {"type": Kind.THINKING, "thinking": text, "signature": signature}
        case Kind.TOOL:
            given = tool_input(text)
            return {"type": Kind.TOOL, "id": begin.id, "name": begin.name, "input": given}


def tool_input(arguments: str) -> dict[str, object]:
    """The arguments of a call as the object that `input` must be; none are an empty one.

    What is no JSON object (a call that max_tokens cut off, say) is handed over whole under one
    telling key: half of an object would look like what the model meant to ask for.
    """
    if not arguments:
        return {}
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return {INVALID_JSON: arguments}
    return value if isinstance(value, dict) else {INVALID_JSON: arguments}
