"""A response request to a job and what is to be stored of it; or to the number of its tokens."""

from dataclasses import dataclass, replace

from openai_compat.context import TokenLimit
from openai_compat.conversation.ask import Conversation, Message
from openai_compat.conversation.lower import Ask, Lowered, lower_conversation
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields
from openai_compat.job import Job, Prepared
from openai_compat.options import MAX_PRIORITY, requested_model
from openai_compat.responses.echo import echo
from openai_compat.responses.frames import Events
from openai_compat.responses.ids import response_id
from openai_compat.responses.items import Item, ItemReader
from openai_compat.responses.messages import messages_of
from openai_compat.responses.output import Output
from openai_compat.responses.reasoning import read_reasoning
from openai_compat.responses.render import ResponseRenderer
from openai_compat.responses.schema import KNOWN, UNSUPPORTED, read_include
from openai_compat.responses.snapshot import Snapshots
from openai_compat.responses.stored import Past
from openai_compat.responses.text import read_format, read_verbosity, unknown_names
from openai_compat.responses.tools import read_tools
from openai_compat.responses.truncate import fitted
from openai_compat.sampling import MAX_TOKENS, read_sampling
from openai_compat.served import CallContext, ServedModel
from openai_compat.sse import json_bytes
from openai_compat.unsupported import refuse_unsupported

MAX_TOP_LOGPROBS = 20
_MAX_INCLUDES = 32
_MAX_ID_CHARS = 256


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the answer reaches the client, and whether it is kept."""

    stream: bool
    background: bool
    store: bool
    previous: str | None
    obfuscated: bool
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResponseJob:
    """A job, and what the store needs to know of it."""

    job: Job
    renderer: ResponseRenderer
    delivery: Delivery
    input: bytes  # its own input items as JSON


@dataclass(frozen=True, slots=True)
class _Read:
    """A request after every check that needs no template."""

    items: list[Item]
    places: list[str]  # the field each item came from
    own: int  # where the request's own items begin
    conversation: Conversation
    ask: Ask
    ignored: tuple[str, ...]

    def lowered(self, first: int, model: ServedModel, call: CallContext) -> Lowered:
        """The lowering without the items before the place `first`."""
        rest = messages_of(self.items[first:], self.places[first:])
        messages: tuple[Message, ...] = (*self.conversation.messages, *rest)
        conversation = replace(self.conversation, messages=messages)
        return lower_conversation(conversation, self.ask, model, call)


def lower_response(
    body: dict[str, object], model: ServedModel, call: CallContext, past: Past, *, keeps: bool
) -> ResponseJob:
    """One engine request. Raises `RequestRejected`; starts nothing. `keeps`: there is a store.

    A template that fails for another reason than the conversation raises `TemplateBroken`.
    """
    fields = Fields(body)
    refuse_unsupported(fields, UNSUPPORTED)
    delivery = _delivery(fields, keeps=keeps)
    include = read_include(fields.items("include", _MAX_INCLUDES) or [], "include")
    read = _read(fields, model, call, past, logprobs=_logprobs(fields, included=include))
    lowered = _fit(fields, read, model, call)
    name = response_id(call.id)
    told = echo(fields, requested_model(body), read.conversation, lowered.request.sampling)
    told |= {"background": delivery.background, "store": delivery.store}
    silent = not (delivery.stream or delivery.background)
    events = Events(silent=silent, obfuscated=delivery.obfuscated)
    renderer = ResponseRenderer(
        lowered.request,
        lowered.choices[0],
        Snapshots(name, call.now, told),
        Output(call.id, events),
        events,
        model.chat_logprobs if include else None,
    )
    job = Job(
        id=name,
        requests=(lowered.request,),
        renderer=renderer,
        stream=delivery.stream,
        ignored=(*fields.unknown(KNOWN), *delivery.ignored, *read.ignored),
        constraint=lowered.constraint,
    )
    return ResponseJob(job, renderer, delivery, json_bytes(read.items[read.own :]))


def count_tokens(
    body: dict[str, object], model: ServedModel, call: CallContext, past: Past
) -> Prepared:
    """What the input of a request counts, as the answer of /v1/responses/input_tokens."""
    job = lower_response(body, model, call, past, keeps=True).job
    counted = {"object": "response.input_tokens", "input_tokens": len(job.requests[0].prompt)}
    return Prepared(json_bytes(counted), job.ignored)


def _read(
    fields: Fields, model: ServedModel, call: CallContext, past: Past, *, logprobs: int | None
) -> _Read:
    reader = ItemReader(call.id, past.named())
    before = past.items()
    own = reader.read(fields)
    tools, ignored = read_tools(fields)
    thinking, also_ignored = read_reasoning(fields, model)
    instructions = fields.text("instructions")
    system = [] if instructions is None else [{"role": "developer", "content": instructions}]
    conversation = Conversation(
        tuple(system),
        tool_use=tools,
        format=read_format(fields),
        thinking=thinking,
        template_kwargs=read_verbosity(fields, model),
        param="input",
    )
    limit = TokenLimit("max_output_tokens", fields.integer("max_output_tokens", 1, MAX_TOKENS))
    priority = fields.integer("priority", -MAX_PRIORITY, MAX_PRIORITY) or 0
    sampling = read_sampling(fields, model, call, logprobs=logprobs)
    places = [
        *("previous_response_id" for _ in before),
        *(f"input[{place}]" for place in range(len(own))),
    ]
    return _Read(
        [*before, *own],
        places if isinstance(fields.raw("input"), list) else [*places[: len(before)], "input"],
        len(before),
        conversation,
        Ask(sampling, limit, priority=priority),
        (*reader.ignored, *ignored, *also_ignored, *unknown_names(fields)),
    )


def _fit(fields: Fields, read: _Read, model: ServedModel, call: CallContext) -> Lowered:
    if fields.one_of("truncation", ("auto", "disabled")) == "auto":
        return fitted(read.items, lambda first: read.lowered(first, model, call))
    return read.lowered(0, model, call)


def _delivery(fields: Fields, *, keeps: bool) -> Delivery:
    background = fields.flag("background")
    store = fields.flag("store", default=keeps)
    if store and not keeps:
        raise RequestRejected(
            "This server keeps no responses (--response-store-bytes is 0); leave 'store' out.",
            param="store",
            code="unsupported_parameter",
        )
    if background and not store:
        raise RequestRejected(
            "'background' needs 'store': nobody could fetch the response otherwise.",
            param="background",
        )
    options = fields.nested("stream_options") or Fields({})
    return Delivery(
        stream=fields.flag("stream"),
        background=background,
        store=store,
        previous=fields.text("previous_response_id", _MAX_ID_CHARS),
        obfuscated=options.flag("include_obfuscation"),
        ignored=options.unknown(("include_obfuscation",)),
    )


def _logprobs(fields: Fields, *, included: bool) -> int | None:
    top = fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS) or 0
    if included:
        return top
    if top:
        raise RequestRejected(
            "'top_logprobs' needs 'include' to have 'message.output_text.logprobs'.",
            param="top_logprobs",
        )
    return None
