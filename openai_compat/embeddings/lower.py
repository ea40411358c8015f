"""An embedding request to a job: one engine request per input, every check before any of them."""

from functools import partial

from openai_compat.embeddings.answer import Form, answer
from openai_compat.embeddings.schema import (
    KNOWN,
    MAX_USER_CHARS,
    UNSUPPORTED,
    Input,
    read_inputs,
)
from openai_compat.fields import Fields, wrong
from openai_compat.options import requested_model
from openai_compat.purpose import require_embeddings
from openai_compat.served import CallContext, ServedModel
from openai_compat.texts import as_requests, encode_texts, read_cut, read_priority
from openai_compat.unsupported import refuse_unsupported
from openai_compat.vector_job import VectorJob

_FORMATS = ("float", "base64")


def lower_embeddings(body: dict[str, object], model: ServedModel, call: CallContext) -> VectorJob:
    """Raises `RequestRejected`; starts nothing."""
    require_embeddings(model)
    fields = Fields(body)
    refuse_unsupported(fields, UNSUPPORTED)
    fields.text("user", MAX_USER_CHARS)
    form = _form(fields, model)
    special = fields.flag("add_special_tokens", default=True)
    inputs, params = read_inputs(fields)
    texts = _prompted(inputs, fields, model)
    encoded = encode_texts(texts, params, model, special=special, cut=read_cut(fields, model))
    requests = as_requests(encoded, read_priority(fields), call)
    tokens = sum(len(request.prompt) for request in requests)
    return VectorJob(
        id=call.id,
        requests=requests,
        answer=partial(answer, form=form, model=requested_model(body), prompt_tokens=tokens),
        ignored=fields.unknown(KNOWN),
    )


def _form(fields: Fields, model: ServedModel) -> Form:
    embeds = model.info.embeds
    size = 0 if embeds is None else embeds.size
    return Form(
        base64=fields.one_of("encoding_format", _FORMATS) == "base64",
        dimensions=fields.integer("dimensions", 1, size),
        normalised=embeds is not None and embeds.normalised,
    )


def _prompted(inputs: list[Input], fields: Fields, model: ServedModel) -> list[Input]:
    """Texts with the prompt that the model wants before them; token ids are taken as they are."""
    name = fields.text("prompt_name")
    if name is not None and name not in model.prompts.named:
        known = ", ".join(sorted(model.prompts.named)) or "none"
        raise wrong(fields.param("prompt_name"), f"a prompt of this model ({known})", name)
    return [
        model.prompts.applied(given, name) if isinstance(given, str) else given for given in inputs
    ]
