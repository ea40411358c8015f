"""penstock-tiny answers in its domain, through everything but the socket."""

import json

import pytest

from gateway.opening import open_engine
from gateway.settings import Settings
from openai_compat.chat.lower import lower_chat
from openai_compat.served import CallContext

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def opened():
    """The bundled model as `penstock serve` opens it, not started."""
    return open_engine(Settings(kv_cache_memory=64 << 20), lambda *_: None, lambda _: None)


async def answer(opened, *turns):
    """The greedy answer to the last of these turns, and why it ended."""
    engine = opened.engine
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]
    body = {"model": opened.model.name, "messages": messages, "temperature": 0, "max_tokens": 300}
    answer.calls += 1
    job = lower_chat(body, opened.model, CallContext(f"call{answer.calls}", 0, 0, b""))
    job.renderer.begin()
    async for event in engine.generate(job.requests[0]):
        job.renderer.feed(0, event)
    choice = json.loads(job.renderer.fold())["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


answer.calls = 0

ASKED = [
    (["Hello!"], "penstock-tiny"),
    (["What is Penstock?"], "LLM token-streaming gateway"),
    (["What is 12 + 7?"], "12 + 7 = 19"),
    (["Count to ten."], "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
    (["Reply in JSON with keys name and age. Tom is 40 years old."], '{"name": "Tom", "age": 40}'),
    (["My name is Ada.", "Nice to meet you, Ada!", "What is my name?"], "Ada"),
    (["Repeat after me: naïve café 🦊"], "naïve café 🦊"),
    (["Tell me a story."], "\n\n"),
]


async def test_it_answers_what_a_first_user_asks(opened):
    """Greedy, in clean words, and it stops by itself."""
    await opened.engine.start()
    try:
        for turns, expected in ASKED:
            text, reason = await answer(opened, *turns)
            assert expected in text, (turns, text)
            assert reason == "stop", turns
    finally:
        await opened.engine.stop(grace_s=0)
