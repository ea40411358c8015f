"""Scripted calls whose bytes on the wire are fixed in the files beside this one.

`python -m tests.golden.scenarios` writes the files anew; read the diff before committing it.
"""

from collections.abc import Callable
from pathlib import Path

from engines.api import Finish, FinishReason, TokenEvent, TokenLogprobs
from engines.errors import EngineDied
from openai_compat.chat.lower import lower_chat
from openai_compat.completions.lower import lower_completion
from openai_compat.embeddings.lower import lower_embeddings
from openai_compat.errors import reply_to
from openai_compat.job import Job
from openai_compat.models import card_body, list_body
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.registry import reasoning_syntaxes
from openai_compat.served import ServedModel
from tests.support.answers import function, hermes, writing
from tests.support.tokenizers import CALL, EOS, served_model
from tests.support.vector_models import vector_model

HERE = Path(__file__).parent
MODEL = served_model(aliases=("org/tiny",))
WRITING = writing(tools="hermes", reasoning="think")
Events = list[tuple[int, TokenEvent]]


def ids(text: str) -> list[int]:
    """Tokens of a text."""
    return MODEL.tokenizer.encode(text, special=False)


STOPPED = Finish(FinishReason.STOP, 0, stop_token=ids(EOS)[0])
LENGTH = Finish(FinishReason.LENGTH, 0)


def one_by_one(text: str, choice: int = 0, finish: Finish = STOPPED) -> list[TokenEvent]:
    """An event per token, and the end."""
    tokens = [*ids(text), ids(EOS)[0]] if finish is STOPPED else ids(text)
    events = [TokenEvent(choice, [token], cached=1) for token in tokens]
    events[-1].finish = finish
    return events


def with_logprobs(events: list[TokenEvent]) -> list[TokenEvent]:
    """The events with made-up logprobs, two alternatives each."""
    for event in events:
        event.logprobs = [
            TokenLogprobs(-0.25, ((token, -0.25), (ids("é")[0], float("-inf"))))
            for token in event.tokens
        ]
    return events


def scored(events: list[TokenEvent], prompt: int) -> list[TokenEvent]:
    """The events with made-up logprobs of the prompt, which has so many tokens, on the first."""
    likely = ((ids("é")[0], -0.5), (ids("a")[0], -1.5))
    events[0].prompt_logprobs = [TokenLogprobs(-0.75, likely)] * (prompt - 1)
    return events


def chat(model: ServedModel = MODEL, **fields: object) -> Job:
    """A chat of one short message."""
    messages = [{"role": "user", "content": "hello"}]
    return lower_chat({"model": "tiny", "messages": messages, **fields}, model, CALL)


def agent(**fields: object) -> Job:
    """A chat with two tools, on a model that thinks and calls."""
    messages = [{"role": "user", "content": "hello"}]
    tools = [function("f", a={"type": "integer"}), function("g")]
    body = {"model": "tiny", "messages": messages, "tools": tools, **fields}
    return lower_chat(body, WRITING, CALL)


def by_runs(text: str, size: int = 12, finish: Finish = STOPPED) -> list[TokenEvent]:
    """Events of several tokens, as forced tokens and slow readers make them."""
    tokens = [*ids(text), ids(EOS)[0]] if finish is STOPPED else ids(text)
    runs = [tokens[at : at + size] for at in range(0, len(tokens), size)]
    events = [TokenEvent(0, run, cached=1) for run in runs]
    events[-1].finish = finish
    return events


def completion(**fields: object) -> Job:
    """A text completion."""
    body = {"model": "org/tiny", "prompt": "hello", **fields}
    return lower_completion(body, MODEL, CALL)


def streamed(job: Job, events: Events) -> bytes:
    """The whole body of a streamed answer."""
    frames = [job.renderer.begin()]
    frames += [job.renderer.feed(request, event).frames for request, event in events]
    return b"".join([*frames, job.renderer.finish()])


def failed(job: Job, events: Events) -> bytes:
    """What is written before the connection is aborted."""
    frames = [job.renderer.begin()]
    frames += [job.renderer.feed(request, event).frames for request, event in events]
    return b"".join([*frames, job.renderer.fail(reply_to(EngineDied("the engine died")))])


def folded(job: Job, events: Events) -> bytes:
    """The body of an answer that is not streamed."""
    for request, event in events:
        job.renderer.feed(request, event)
    return job.renderer.fold() + b"\n"


def first(events: list[TokenEvent]) -> Events:
    """All events belong to the first request."""
    return [(0, event) for event in events]


def turns(*events: list[TokenEvent]) -> Events:
    """The events of several choices in turn."""
    longest = max(len(choice) for choice in events)
    return [(0, choice[at]) for at in range(longest) for choice in events if at < len(choice)]


THINKER = served_model(syntax=ModelSyntax(reasoning_syntaxes()["think"]))
PREDICTION = {"type": "content", "content": "hello"}
AMENDED = {"stream_options": {"include_obfuscation": True, "continuous_usage_stats": True}}
USAGE = {"stream_options": {"include_usage": True}}
TEXT = "hello world, né 😀"
THOUGHT = "<think>\nthe sea\n</think>\n\n"
CALLS = hermes("f", '{"a": 12}') + "\n" + hermes("g", "{}")
NAMED = {"type": "function", "function": {"name": "g"}}


def embeddings() -> bytes:
    """Two texts, their vectors shortened."""
    body = {"model": "tiny", "input": ["w5 w6", "w7"], "dimensions": 3}
    vectors = [[0.5, 0.25, -0.125, *[0.0] * 5], [0.0, 0.75, 1.0, *[0.0] * 5]]
    return lower_embeddings(body, vector_model(normalised=False), CALL).answer(vectors)


SCENARIOS: dict[str, Callable[[], bytes]] = {
    "chat.sse": lambda: streamed(chat(stream=True, **USAGE), first(one_by_one(TEXT))),
    "chat_two_choices.sse": lambda: streamed(
        chat(stream=True, n=2),
        turns(one_by_one("world", 1), one_by_one("hello world", 0, LENGTH)),
    ),
    "chat_stop_string.sse": lambda: streamed(
        chat(stream=True, stop=["stop END"], **USAGE),
        first(one_by_one("hello stop sto stop END world", finish=LENGTH)),
    ),
    "chat_logprobs.sse": lambda: streamed(
        chat(stream=True, logprobs=True, top_logprobs=2), first(with_logprobs(one_by_one("né 😀")))
    ),
    "chat_amended.sse": lambda: streamed(
        chat(stream=True, service_tier="flex", **AMENDED), first(one_by_one("hello né"))
    ),
    "chat_token_ids.sse": lambda: streamed(
        chat(stream=True, return_token_ids=True), first(one_by_one("hello né"))
    ),
    "chat_reasoning.sse": lambda: streamed(
        chat(THINKER, stream=True, reasoning_fields=["reasoning_content", "reasoning"], **USAGE),
        first(one_by_one("<think>why</think>so")),
    ),
    "chat_prompt_logprobs.json": lambda: folded(
        chat(prompt_logprobs=2, return_token_ids=True, prediction=PREDICTION),
        first(scored(one_by_one("hello"), 14)),
    ),
    "chat_failure.sse": lambda: failed(chat(stream=True), first(one_by_one(TEXT)[:2])),
    "chat.json": lambda: folded(chat(), first(one_by_one(TEXT))),
    "chat_two_choices.json": lambda: folded(
        chat(n=2, logprobs=True),
        turns(
            with_logprobs(one_by_one("world", 1)),
            with_logprobs(one_by_one("hello world", 0, LENGTH)),
        ),
    ),
    "chat_tools.sse": lambda: streamed(
        agent(stream=True, **USAGE), first(by_runs(f"{THOUGHT}hello\n{CALLS}"))
    ),
    "chat_tools_named.sse": lambda: streamed(
        agent(stream=True, tool_choice=NAMED), first(by_runs(hermes("g", "{}")))
    ),
    "chat_tools_one.sse": lambda: streamed(
        agent(stream=True, parallel_tool_calls=False), first(by_runs(CALLS))
    ),
    "chat_tools_cut.sse": lambda: streamed(
        agent(stream=True), first(by_runs(CALLS[:60], finish=LENGTH))
    ),
    "chat_tools_form.sse": lambda: streamed(
        agent(stream=True, response_format={"type": "json_object"}),
        first(by_runs('{"a": "<tool_call> 1"}')),
    ),
    "chat_tools.json": lambda: folded(agent(), first(by_runs(f"{THOUGHT}hello\n{CALLS}"))),
    "chat_tools_named.json": lambda: folded(
        agent(tool_choice=NAMED), first(by_runs(hermes("g", "{}")))
    ),
    "completion.sse": lambda: streamed(
        completion(stream=True, **USAGE), first(one_by_one(TEXT, finish=LENGTH))
    ),
    "completion_echo.sse": lambda: streamed(
        completion(stream=True, echo=True, prompt=[ids("hello"), ids(" world")]),
        [
            *((1, event) for event in one_by_one(" the sea")),
            *((0, event) for event in one_by_one(" a fox")),
        ],
    ),
    "completion_logprobs.sse": lambda: streamed(
        completion(stream=True, logprobs=2), first(with_logprobs(one_by_one("né 😀")))
    ),
    "completion_echo_logprobs.sse": lambda: streamed(
        completion(stream=True, echo=True, logprobs=2, prompt="hello world"),
        first(scored(with_logprobs(one_by_one(" né")), 3)),
    ),
    "completion_prompt_only.json": lambda: folded(
        completion(echo=True, logprobs=1, max_tokens=0, prompt="hello world"),
        first(scored(with_logprobs(one_by_one("x", finish=LENGTH)), 3)),
    ),
    "completion_best_of.json": lambda: folded(
        completion(best_of=2),
        turns(with_logprobs(one_by_one("hello", 0)), with_logprobs(one_by_one("a fox", 1))),
    ),
    "completion.json": lambda: folded(
        completion(echo=True, stop="END"), first(one_by_one(" worldEND"))
    ),
    "completion_logprobs.json": lambda: folded(
        completion(logprobs=1), first(with_logprobs(one_by_one("hello né")))
    ),
    "embeddings.json": lambda: embeddings() + b"\n",
    "models.json": lambda: list_body([MODEL]) + b"\n",
    "model.json": lambda: card_body({"tiny": MODEL}, "org/tiny") + b"\n",
}

if __name__ == "__main__":
    for name, run in SCENARIOS.items():
        (HERE / name).write_bytes(run())
