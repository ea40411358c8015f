"""Rows of the table of request fields: what a value does to a call, seen from outside of it."""

import json
from dataclasses import dataclass, field, replace

from engines.api import Finish, FinishReason, TokenEvent, TokenLogprobs
from openai_compat.chat.lower import lower_chat
from openai_compat.completions.lower import lower_completion
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.registry import reasoning_syntaxes, tool_syntaxes
from tests.support.tokenizers import CALL, CHATML, EOS, byte_level, served_model

CHAT, TEXT = "chat", "completions"
PHASES = "trtllm.disaggregated"
BOTH = (CHAT, TEXT)
PLAIN = served_model()
BOS_FIRST = served_model(backend=byte_level(bos=True))
# Reads every variable that a client may set, and writes reasoning and calls.
TOLD = (
    CHATML + "{{ style }}{{ verbosity }}{{ reasoning_effort }}"
    "{% if enable_thinking %}on{% endif %}{% if thinking %}on{% endif %}"
)
SYNTAX = ModelSyntax(reasoning_syntaxes()["think"], tool_syntaxes()["hermes"])
THINKER = served_model(template=TOLD, syntax=SYNTAX)
HARMONY = served_model(
    syntax=ModelSyntax(reasoning_syntaxes()["harmony"], tool_syntaxes()["harmony"])
)
GREEDY = served_model(capabilities=())
SPECIAL = replace(
    PLAIN, takes_extras=True, info=replace(PLAIN.info, extras=frozenset({"own", PHASES}))
)


@dataclass(frozen=True)
class Works:
    """A value that is accepted, and the claim about what it does."""

    name: str
    value: object
    holds: object  # called with the lowered job
    on: tuple = BOTH
    model: object = PLAIN
    more: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A value that is refused with 400, naming the field (or `param`, inside of it)."""

    name: str
    value: object
    code: str | None = None
    param: str | None = None
    on: tuple = BOTH
    model: object = PLAIN
    more: dict = field(default_factory=dict)


def lower(route, model, /, **fields):
    """The job of a short call."""
    if route == TEXT:
        return lower_completion({"model": "tiny", "prompt": "hello", **fields}, model, CALL)
    messages = [{"role": "user", "content": "hello"}]
    return lower_chat({"model": "tiny", "messages": messages, **fields}, model, CALL)


def prompt(job, model=PLAIN):
    """The first prompt spelled out, special tokens too."""
    return model.tokenizer.decode_spelled(list(job.requests[0].prompt))


def ids(text):
    """Tokens of a text."""
    return PLAIN.tokenizer.encode(text, special=False)


def events(job, said="hello world", *, stop=True):
    """What an engine might say, one token an event, with what the job asks to be told.

    Extras are answered with themselves, at the end.
    """
    tokens = ids(said) + ([ids(EOS)[0]] if stop else [])
    for number, request in enumerate(job.requests):
        asked = request.sampling
        told = None
        if asked.prompt_logprobs is not None:
            likely = ((5, -0.25), (6, -1.5))[: asked.prompt_logprobs]
            told = [TokenLogprobs(-0.5, likely)] * (len(request.prompt) - 1)
        for choice in range(request.n):
            for place, token in enumerate(tokens):
                entry = None
                if asked.logprobs is not None:
                    # The later a choice, the likelier its tokens.
                    entry = [TokenLogprobs(-1 / (1 + choice), ((token, -0.1),) * asked.logprobs)]
                event = TokenEvent(choice, [token], 1, entry)
                if place == 0:
                    event.prompt_logprobs = told
                if place == len(tokens) - 1:
                    reason = FinishReason.STOP if stop else FinishReason.LENGTH
                    event.finish = Finish(reason, len(tokens), token if stop else None)
                    event.extras = dict(request.extras) or None
                yield number, event


def answer(job, said="hello world", *, stop=True):
    """The JSON of an answer that is not streamed."""
    for number, event in events(job, said, stop=stop):
        job.renderer.feed(number, event)
    return json.loads(job.renderer.fold())


def raw_frames(job, said="hello world"):
    """The bytes of a streamed answer, event by event."""
    frames = job.renderer.begin()
    frames += b"".join(job.renderer.feed(*event).frames for event in events(job, said))
    return (frames + job.renderer.finish()).split(b"\n\n")[:-1]


def frames(job, said="hello world"):
    """The JSON of every event but the last."""
    *chunks, done = raw_frames(job, said)
    assert done == b"data: [DONE]"
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]


def choice(job, said="hello world", *, stop=True):
    """The first choice of the answer."""
    return answer(job, said, stop=stop)["choices"][0]


def said(job, text="hello world", *, stop=True):
    """What the first choice says, on either route."""
    found = choice(job, text, stop=stop)
    return found["text"] if "text" in found else found["message"]["content"]


def samples(**expected):
    """A claim about the engine's sampling."""

    def holds(job):
        sampling = job.requests[0].sampling
        assert {name: getattr(sampling, name) for name in expected} == expected

    return holds


def requests(**expected):
    """A claim about the engine's request."""

    def holds(job):
        request = job.requests[0]
        assert {name: getattr(request, name) for name in expected} == expected

    return holds


def changes_nothing(job):
    """The value asks for nothing: request and answer are those without it."""
    route = TEXT if job.id.startswith("cmpl") else CHAT
    plain = lower(route, PLAIN)
    assert (job.requests, job.ignored, job.stream) == (plain.requests, (), False)
    assert answer(job) == answer(plain)
