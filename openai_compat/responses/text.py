"""The `text` field of a response request: the form of the answer, and how wordy it is."""

from openai_compat.conversation.ask import AnswerFormat, FormatKind
from openai_compat.conversation.formats import read_named_schema
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.served import ServedModel

_VERBOSITIES = ("low", "medium", "high")


def read_format(fields: Fields) -> AnswerFormat | None:
    """The form asked for; None where any text will do. Raises `RequestRejected`."""
    text = fields.nested("text") or Fields({})
    form = text.nested("format")
    if form is None:
        return None
    match form.raw("type"):
        case "text":
            return None
        case "json_object":
            return AnswerFormat(FormatKind.JSON_OBJECT, None, form.path)
        case "json_schema":
            return read_named_schema(form, form.path)
    raise wrong(form.param("type"), "text, json_object or json_schema", form.raw("type"))


def read_verbosity(fields: Fields, model: ServedModel) -> dict[str, object]:
    """The template variable that says it. Medium asks for nothing where there is none.

    Raises `RequestRejected`.
    """
    text = fields.nested("text") or Fields({})
    level = text.one_of("verbosity", _VERBOSITIES)
    if level is None:
        return {}
    if model.template is not None and "verbosity" in model.template.variables:
        return {"verbosity": level}
    if level == "medium":
        return {}
    raise RequestRejected(
        "'text.verbosity' cannot be followed: the chat template of this model does not read it.",
        param="text.verbosity",
        code="unsupported_by_model",
    )


def unknown_names(fields: Fields) -> tuple[str, ...]:
    """Names in `text` that nobody asked about."""
    text = fields.nested("text")
    if text is None:
        return ()
    form = text.nested("format") or Fields({})
    known = ("type", "name", "description", "schema", "strict")
    return (*text.unknown(("format", "verbosity")), *form.unknown(known))
