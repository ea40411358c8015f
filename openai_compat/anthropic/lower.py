"""A messages request to a job, or to the number of tokens its prompt has."""

from dataclasses import replace

from openai_compat.anthropic.answer import Head
from openai_compat.anthropic.blocks import BlockSequence
from openai_compat.anthropic.notes import Ignored
from openai_compat.anthropic.render import MessageRenderer
from openai_compat.anthropic.schema import (
    KNOWN,
    KNOWN_TO_COUNT,
    SAMPLING,
    Asked,
    check_budget,
    check_labels,
    read_conversation,
    read_max_tokens,
    read_stops,
)
from openai_compat.choice import Ending
from openai_compat.context import TokenLimit
from openai_compat.conversation.lower import Ask, Lowered, lower_conversation
from openai_compat.conversation.prompt import prompt_text
from openai_compat.fields import Fields
from openai_compat.job import Job, Prepared
from openai_compat.options import requested_model
from openai_compat.sampling import read_sampling
from openai_compat.served import CallContext, ServedModel
from openai_compat.sse import json_bytes

_CONTEXT_FULL = "model_context_window_exceeded"


def lower_message(body: dict[str, object], model: ServedModel, call: CallContext) -> Job:
    """One engine request for the conversation. Raises `RequestRejected`; starts nothing.

    A `max_tokens` beyond the context is no mistake in this dialect: the answer may fill what is
    left, and tells so when it did.
    """
    fields, ignored = Fields(body), Ignored()
    ignored.note(fields, KNOWN)
    max_tokens = read_max_tokens(fields)
    check_budget(fields, max_tokens)
    check_labels(fields, ignored)
    asked = read_conversation(fields, model, ignored)
    lowered = lower_conversation(asked.conversation, _ask(fields, model, call), model, call)
    room = lowered.request.sampling.max_tokens
    sampling = replace(lowered.request.sampling, max_tokens=min(max_tokens, room))
    lowered = replace(lowered, request=replace(lowered.request, sampling=sampling))
    length_reason = "max_tokens" if max_tokens <= room else _CONTEXT_FULL
    head = Head(f"msg_{call.id}", requested_model(body))
    return _job(head, lowered, asked, ignored, stream=fields.flag("stream"), reason=length_reason)


def count_tokens(body: dict[str, object], model: ServedModel, call: CallContext) -> Prepared:
    """How many tokens the prompt of this conversation has, however long it is."""
    fields, ignored = Fields(body), Ignored()
    ignored.note(fields, KNOWN_TO_COUNT)
    asked = read_conversation(fields, model, ignored)
    text = prompt_text(asked.conversation, model, call)
    tokens = len(model.tokenizer.encode(text, special=False))
    return Prepared(json_bytes({"input_tokens": tokens}), ignored.names)


def _ask(fields: Fields, model: ServedModel, call: CallContext) -> Ask:
    fields.number("temperature", 0, 1)  # OpenAI's goes to 2
    fields.integer("top_k", 0, model.info.vocab_size)
    shaping = Fields({name: fields.raw(name) for name in SAMPLING})
    return Ask(
        read_sampling(shaping, model, call, logprobs=None),
        TokenLimit("max_tokens", None),
        stops=read_stops(fields),
        named_end=Ending.TOOL_CALLS,
    )


def _job(
    head: Head, lowered: Lowered, asked: Asked, ignored: Ignored, *, stream: bool, reason: str
) -> Job:
    renderer = MessageRenderer(
        head,
        lowered.request,
        lowered.choices[0],
        BlockSequence(omit_thinking=asked.omit_thinking),
        stream=stream,
        length_reason=reason,
    )
    return Job(
        id=head.id,
        requests=(lowered.request,),
        renderer=renderer,
        stream=stream,
        ignored=ignored.names,
        constraint=lowered.constraint,
    )
