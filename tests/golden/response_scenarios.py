"""Scripted responses whose bytes on the wire are fixed in the folder beside this file.

`python -m tests.golden.response_scenarios` writes the files anew; read the diff before committing.
"""

from collections.abc import Callable
from pathlib import Path

from engines.errors import EngineDied
from openai_compat.errors import reply_to
from openai_compat.responses.lower import count_tokens
from openai_compat.responses.query import read_page
from openai_compat.responses.stored import Past
from tests.support.messages import PLAIN, THINKER, token_events
from tests.support.responses import (
    ROUND,
    WEATHER,
    fed,
    request,
    response,
    stored,
    streamed,
    with_logprobs,
)
from tests.support.tokenizers import CALL

HERE = Path(__file__).parent / "responses"
TEXT = "hello world, né 😀"
INCLUDE = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}


def failed() -> bytes:
    """What is written before the connection is cut."""
    asked = response(stream=True)
    frames = fed(asked, token_events(TEXT, end=None)[:2])
    return frames + asked.renderer.fail(reply_to(EngineDied("the engine died")))


def cancelled() -> bytes:
    """What a follower reads of a response that is cancelled."""
    asked = response(stream=True, background=True)
    return fed(asked, token_events(TEXT, end=None)[:2]) + asked.renderer.cancel()


def folded(**fields: object) -> bytes:
    """The body of an answer that is not streamed."""
    asked = response(THINKER, **fields)
    fed(asked, token_events(ROUND))
    return asked.renderer.fold() + b"\n"


def input_items() -> bytes:
    """What a response was given, listed."""
    before = response(THINKER, tools=[WEATHER])
    fed(before, token_events(ROUND))
    before.renderer.fold()
    return read_page([("order", "asc")]).of(Past((stored(before),)).items()) + b"\n"


SCENARIOS: dict[str, Callable[[], bytes]] = {
    "response.sse": lambda: streamed(response(stream=True), token_events(TEXT)),
    "response_round.sse": lambda: streamed(
        response(THINKER, stream=True, tools=[WEATHER]), token_events(ROUND)
    ),
    "response_logprobs.sse": lambda: streamed(
        response(stream=True, **INCLUDE), with_logprobs(token_events("né 😀"))
    ),
    "response_incomplete.sse": lambda: streamed(
        response(stream=True, max_output_tokens=9), token_events("hello", end="length")
    ),
    "response_background.sse": lambda: streamed(
        response(stream=True, background=True), token_events("hello")
    ),
    "response_failed.sse": failed,
    "response_cancelled.sse": cancelled,
    "response.json": lambda: folded(tools=[WEATHER], instructions="be brief"),
    "input_items.json": input_items,
    "input_tokens.json": lambda: count_tokens(request(), PLAIN, CALL, Past()).body + b"\n",
}

if __name__ == "__main__":
    for name, run in SCENARIOS.items():
        (HERE / name).write_bytes(run())
