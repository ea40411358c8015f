"""A chat request to a job: every check that needs no engine, the template, the tokens."""

from engines.api import GenerationRequest, RequestId
from engines.text.template import ChatTemplate, TemplateRefused
from openai_compat.chat.schema import KNOWN, UNSUPPORTED, read_messages
from openai_compat.chat.stream import ChatShape
from openai_compat.choice import Choice
from openai_compat.context import TokenLimit, encode_prompt, fit
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields
from openai_compat.identity import Identity, identity
from openai_compat.job import Job
from openai_compat.options import Options, check_metadata, read_options, requested_model
from openai_compat.render import EventRenderer
from openai_compat.sampling import MAX_TOKENS, limit_tokens, read_sampling
from openai_compat.served import CallContext, ServedModel
from openai_compat.unsupported import refuse_unsupported

MAX_TOP_LOGPROBS = 20
_MAX_HINT_CHARS = 512
_MAX_REASON_CHARS = 200  # templates may quote the message they refuse


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
    prompt = encode_prompt(
        _prompt_text(messages, model, call), model, special=False, param="messages"
    )
    request = GenerationRequest(
        id=RequestId(call.id),
        prompt=tuple(prompt),
        sampling=limit_tokens(sampling, fit(prompt, limit, model, param="messages")),
        n=options.n,
        priority=options.priority,
        cache_salt=call.cache_salt,
    )
    answer = identity("chatcmpl", requested_model(body), model, call)
    return Job(
        id=answer.id,
        requests=(request,),
        renderer=_renderer(request, options, answer, model),
        stream=options.stream,
        ignored=(*fields.unknown(KNOWN), *options.ignored, *ignored),
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


def _prompt_text(messages: list[dict[str, object]], model: ServedModel, call: CallContext) -> str:
    template = model.template
    if template is None:
        raise RequestRejected(
            "This model has no chat template; use /v1/completions.",
            param="model",
            code="no_chat_template",
        )
    try:
        return template.render(_with_system(messages, template), now=call.now)
    except TemplateRefused as refusal:
        raise RequestRejected(
            f"The model's chat template refuses these messages: {str(refusal)[:_MAX_REASON_CHARS]}",
            param="messages",
            code="messages_refused_by_template",
        ) from refusal


def _with_system(
    messages: list[dict[str, object]], template: ChatTemplate
) -> list[dict[str, object]]:
    """Developer messages as system messages; all in one at the start where the template needs it.

    Templates that were written for one leading system message refuse others, or lose them.
    """
    mapped = [
        {**message, "role": "system"} if message["role"] == "developer" else message
        for message in messages
    ]
    if template.keeps_scattered_system:
        return mapped
    system = [message for message in mapped if message["role"] == "system"]
    if not system or (len(system) == 1 and mapped[0] is system[0]):
        return mapped
    text = "\n\n".join(str(message["content"]) for message in system)
    rest = [message for message in mapped if message["role"] != "system"]
    return [{"role": "system", "content": text}, *rest]


def _renderer(
    request: GenerationRequest, options: Options, answer: Identity, model: ServedModel
) -> EventRenderer:
    shape = ChatShape(answer, model.chat_logprobs, include_usage=options.include_usage)
    choices = [Choice(model.tokenizer.detokenizer(), options.stops) for _ in range(request.n)]
    return EventRenderer(shape, (request,), choices, options)
