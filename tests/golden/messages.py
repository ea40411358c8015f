"""Scripted messages of Anthropic's dialect, whose bytes are fixed in the folder beside this file.

`python -m tests.golden.messages` writes the files anew; read the diff before committing it.
"""

import json
from collections.abc import Callable
from pathlib import Path

from engines.errors import EngineDied
from openai_compat.anthropic.errors import error_body
from openai_compat.errors import RequestRejected, reply_to
from tests.support.messages import THINKER, WEATHER, folded, message, streamed, token_events

HERE = Path(__file__).parent / "anthropic"
TEXT = "hello world, né 😀"
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"q": "the sea"}}\n</tool_call>'
ROUND = f"<think>\nthe sea\n</think>\n\nhello\n\n{CALL}"


def as_json(value: object) -> bytes:
    """One line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def failed() -> bytes:
    """What is written before the connection is cut."""
    renderer = message(stream=True).renderer
    frames = [renderer.begin()]
    frames += [renderer.feed(0, event).frames for event in token_events(TEXT)[:2]]
    return b"".join([*frames, renderer.fail(reply_to(EngineDied("the engine died")))])


def refused() -> bytes:
    """A refusal."""
    try:
        message(temperature=2)
    except RequestRejected as refusal:
        return error_body(refusal.reply, "req-1") + b"\n"
    raise AssertionError("it was taken")


SCENARIOS: dict[str, Callable[[], bytes]] = {
    "message.sse": lambda: streamed(message(stream=True), token_events(TEXT)),
    "message_tools.sse": lambda: streamed(
        message(THINKER, stream=True, tools=[WEATHER]), token_events(ROUND)
    ),
    "message_stop_sequence.sse": lambda: streamed(
        message(stream=True, stop_sequences=["stop END"]),
        token_events("hello stop sto stop END world", end="length"),
    ),
    "message_failure.sse": failed,
    "message.json": lambda: as_json(folded(message(), token_events(TEXT, end="length"))),
    "message_tools.json": lambda: as_json(
        folded(message(THINKER, tools=[WEATHER]), token_events(ROUND))
    ),
    "refusal.json": refused,
}

if __name__ == "__main__":
    for name, run in SCENARIOS.items():
        (HERE / name).write_bytes(run())
