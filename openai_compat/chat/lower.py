"""A chat request to a job: every check that needs no engine, the conversation, the frames."""

from dataclasses import replace

from openai_compat.amended import amended
from openai_compat.cache_salt import salted
from openai_compat.chat.labels import read_labels
from openai_compat.chat.prompting import read_continuation, read_template_kwargs, read_thinking
from openai_compat.chat.schema import KNOWN, UNSUPPORTED, read_messages
from openai_compat.chat.stream import REASONING_FIELDS, ChatShape, ChatTelling
from openai_compat.context import TokenLimit, read_truncation
from openai_compat.conversation.ask import Conversation
from openai_compat.conversation.formats import read_format
from openai_compat.conversation.lower import Ask, lower_conversation
from openai_compat.conversation.tools import read_tool_use
from openai_compat.engine_extras import Extras, read_extras
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.identity import identity
from openai_compat.job import Job
from openai_compat.logprobs import ChatLogprobs
from openai_compat.options import Options, read_options, refuse_streamed_prompt, requested_model
from openai_compat.prompt_telling import PromptTelling
from openai_compat.render import EventRenderer
from openai_compat.sampling import MAX_TOKENS, read_sampling
from openai_compat.served import CallContext, ServedModel
from openai_compat.unsupported import refuse_unsupported

MAX_TOP_LOGPROBS = 20


def lower_chat(body: dict[str, object], model: ServedModel, call: CallContext) -> Job:
    """One engine request for the conversation. Raises `RequestRejected`; starts nothing.

    A template that fails for another reason than the conversation raises `TemplateBroken`.
    """
    fields = Fields(body)
    refuse_unsupported(fields, UNSUPPORTED)
    options = read_options(fields)
    extras = read_extras(fields, model)
    telling = _telling(fields, options, extras)
    ask = replace(_ask(fields, options, model, call), extras=extras.asked)
    messages, ignored = read_messages(fields)
    conversation = _conversation(fields, messages, model)
    lowered = lower_conversation(conversation, ask, model, salted(fields, call))
    answer = identity("chatcmpl", requested_model(body), model, call)
    prompt = PromptTelling(lowered.request.prompt, model.tokenizer, ids=telling.token_ids)
    shape = ChatShape(answer, _logprobs_of(model, options), prompt, telling)
    renderer = EventRenderer(shape, (lowered.request,), lowered.choices, options)
    return Job(
        id=answer.id,
        requests=(lowered.request,),
        renderer=amended(renderer, options, call.seed, shape.usage),
        stream=options.stream,
        ignored=(*fields.unknown(KNOWN), *options.ignored, *ignored),
        constraint=lowered.constraint,
    )


def _ask(fields: Fields, options: Options, model: ServedModel, call: CallContext) -> Ask:
    limit = _token_limit(fields)
    refuse_streamed_prompt(fields, options)
    return Ask(
        read_sampling(fields, model, call, logprobs=_logprobs(fields)),
        limit,
        options.n,
        options.stops,
        options.priority,
        showing=options.showing,
        truncation=read_truncation(fields, limit, model),
        special=fields.flag("add_special_tokens"),
        separate_reasoning=_separates_reasoning(fields, model),
    )


def _conversation(
    fields: Fields, messages: list[dict[str, object]], model: ServedModel
) -> Conversation:
    continues, opens = read_continuation(fields, messages)
    return Conversation(
        tuple(messages),
        read_tool_use(fields),
        read_format(fields),
        thinking=read_thinking(fields, model),
        template_kwargs=read_template_kwargs(fields, model),
        continue_final=continues,
        add_generation_prompt=opens,
    )


def _telling(fields: Fields, options: Options, extras: Extras) -> ChatTelling:
    told = fields.items("reasoning_fields", len(REASONING_FIELDS))
    param = fields.param("reasoning_fields")
    if told is not None and (not told or not all(name in REASONING_FIELDS for name in told)):
        raise wrong(param, "an array of one or both of " + ", ".join(REASONING_FIELDS), told)
    names = REASONING_FIELDS[:1] if told is None else tuple(map(str, told))
    return ChatTelling(
        include_usage=options.include_usage,
        reasoning=names if fields.flag("include_reasoning", default=True) else (),
        labels=read_labels(fields),
        token_ids=options.showing.token_ids,
        extras=extras,
    )


def _separates_reasoning(fields: Fields, model: ServedModel) -> bool:
    separates = fields.flag("separate_reasoning", default=True)
    if not separates and model.syntax.joint:
        param = fields.param("separate_reasoning")
        raise RequestRejected(
            f"'{param}' cannot be false here: this model's reasoning and content are one format.",
            param=param,
            code="unsupported_by_model",
        )
    return separates


def _logprobs_of(model: ServedModel, options: Options) -> ChatLogprobs:
    if options.showing.tokens_as_ids:
        return ChatLogprobs(model.tokenizer, as_ids=True)
    return model.chat_logprobs


def _token_limit(fields: Fields) -> TokenLimit:
    """The newer name wins; both are checked."""
    older = fields.integer("max_tokens", 1, MAX_TOKENS)
    newer = fields.integer("max_completion_tokens", 1, MAX_TOKENS)
    if newer is not None:
        return TokenLimit("max_completion_tokens", newer)
    return TokenLimit("max_tokens", older)


def _logprobs(fields: Fields) -> int | None:
    top = fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if fields.flag("logprobs"):
        return top or 0
    if top:
        raise RequestRejected("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    return None
