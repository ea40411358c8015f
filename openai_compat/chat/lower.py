"""A chat request to a job: every check that needs no engine, the conversation, the frames."""

from openai_compat.chat.schema import KNOWN, UNSUPPORTED, read_messages
from openai_compat.chat.stream import ChatShape
from openai_compat.context import TokenLimit
from openai_compat.conversation.ask import Conversation
from openai_compat.conversation.lower import Ask, lower_conversation
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields
from openai_compat.identity import identity
from openai_compat.job import Job
from openai_compat.options import check_metadata, read_options, requested_model
from openai_compat.render import EventRenderer
from openai_compat.sampling import MAX_TOKENS, read_sampling
from openai_compat.served import CallContext, ServedModel
from openai_compat.unsupported import refuse_unsupported

MAX_TOP_LOGPROBS = 20
_MAX_HINT_CHARS = 512


def lower_chat(body: dict[str, object], model: ServedModel, call: CallContext) -> Job:
    """One engine request for the conversation. Raises `RequestRejected`; starts nothing.

    A template that fails for another reason than the conversation raises `TemplateBroken`.
    """
    fields = Fields(body)
    refuse_unsupported(fields, UNSUPPORTED)
    options = read_options(fields)
    _check_hints(fields)
    limit = _token_limit(fields)
    sampling = read_sampling(fields, model, call, logprobs=_logprobs(fields))
    messages, ignored = read_messages(fields)
    ask = Ask(sampling, limit, options.n, options.stops, options.priority)
    lowered = lower_conversation(Conversation(tuple(messages)), ask, model, call)
    answer = identity("chatcmpl", requested_model(body), model, call)
    shape = ChatShape(answer, model.chat_logprobs, include_usage=options.include_usage)
    return Job(
        id=answer.id,
        requests=(lowered.request,),
        renderer=EventRenderer(shape, (lowered.request,), lowered.choices, options),
        stream=options.stream,
        ignored=(*fields.unknown(KNOWN), *options.ignored, *ignored),
        constraint=lowered.constraint,
    )


def _check_hints(fields: Fields) -> None:
    """Fields that label a call and change nothing in its answer; still bounded."""
    check_metadata(fields)
    fields.text("prompt_cache_key", _MAX_HINT_CHARS)
    fields.text("safety_identifier", _MAX_HINT_CHARS)


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
