"""The form an answer is asked to have: `response_format`, and the names vLLM and SGLang give it."""

import re
from collections.abc import Callable, Mapping

from openai_compat.body import parse_body
from openai_compat.conversation.ask import AnswerFormat, FormatKind
from openai_compat.conversation.json_schema import check_schema
from openai_compat.conversation.structural_tag import check_structural_tag
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.unsupported import unsupported

MAX_EXPRESSION_CHARS = 16_384
MAX_GRAMMAR_CHARS = 131_072
MAX_CHOICES = 1000
MAX_CHOICE_CHARS = 4096
_GBNF = re.compile(r"^[ \t]*root[ \t]*::=", re.MULTILINE)  # no blank is a line end: it is linear
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

Reader = Callable[[Fields, str], AnswerFormat | None]


def _object(fields: Fields, name: str) -> AnswerFormat | None:
    return AnswerFormat(FormatKind.JSON_OBJECT, None, fields.param(name))


def _asked_object(fields: Fields, name: str) -> AnswerFormat | None:
    return _object(fields, name) if fields.flag(name) else None


def _schema(fields: Fields, name: str) -> AnswerFormat | None:
    value, param = fields.raw(name), fields.param(name)
    if isinstance(value, str):
        value = _read_text(value, param)
    return AnswerFormat(FormatKind.JSON_SCHEMA, check_schema(value, param), param)


def _read_text(text: str, param: str) -> dict[str, object]:
    """A schema that is sent as text, as vLLM's and SGLang's clients may; read like a body."""
    try:
        return parse_body(text.encode())
    except RequestRejected as error:
        raise wrong(param, "a JSON schema, as an object or as its text", text) from error


def _regex(fields: Fields, name: str) -> AnswerFormat | None:
    return AnswerFormat(
        FormatKind.REGEX, _some_text(fields, name, MAX_EXPRESSION_CHARS), fields.param(name)
    )


def _grammar(fields: Fields, name: str) -> AnswerFormat | None:
    text = _some_text(fields, name, MAX_GRAMMAR_CHARS)
    if _GBNF.search(text):
        raise RequestRejected(
            f"'{fields.param(name)}' is written in GBNF ('::='), which is not understood; Lark is"
            " ('start: ...').",
            param=fields.param(name),
            code="invalid_grammar",
        )
    return AnswerFormat(FormatKind.GRAMMAR, text, fields.param(name))


def _choice(fields: Fields, name: str) -> AnswerFormat | None:
    param = fields.param(name)
    choices = fields.items(name, MAX_CHOICES)
    if not choices:
        raise wrong(param, f"an array of 1 to {MAX_CHOICES} strings", choices)
    for place, choice in enumerate(choices):
        if not isinstance(choice, str) or not 0 < len(choice) <= MAX_CHOICE_CHARS:
            wanted = f"a string of 1 to {MAX_CHOICE_CHARS} characters"
            raise wrong(f"{param}[{place}]", wanted, choice)
    return AnswerFormat(FormatKind.CHOICE, choices, param)


def _structural_tag(fields: Fields, name: str) -> AnswerFormat | None:
    param = fields.param(name)
    nested = fields.nested(name)
    if nested is None:
        return None
    return AnswerFormat(FormatKind.STRUCTURAL_TAG, check_structural_tag(nested), param)


# vLLM's names, SGLang's, and those inside of vLLM's `structured_outputs`.
_EXTENSIONS: Mapping[str, Reader] = {
    "guided_json": _schema,
    "guided_regex": _regex,
    "guided_choice": _choice,
    "guided_grammar": _grammar,
    "json_schema": _schema,
    "regex": _regex,
    "ebnf": _grammar,
    "structural_tag": _structural_tag,
}
_STRUCTURED: Mapping[str, Reader] = {
    "json": _schema,
    "json_object": _asked_object,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
    "structural_tag": _structural_tag,
}
_STRUCTURED_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "disable_any_whitespace": (False, True),  # blanks are always as in ours
    "disable_fallback": (False, True),  # there is none
    "disable_additional_properties": (False,),
    "whitespace_pattern": (),
}

FORMAT_FIELDS = frozenset({"response_format", "structured_outputs", *_EXTENSIONS})


def read_format(fields: Fields) -> AnswerFormat | None:
    """The one form that a request asks for. Raises `RequestRejected`, also for two of them."""
    found = [read_response_format(fields, "response_format"), _structured_outputs(fields)]
    for name, read in _EXTENSIONS.items():
        if fields.raw(name) is not None:
            found.append(read(fields, name))
    return _only([each for each in found if each is not None])


def read_response_format(fields: Fields, name: str) -> AnswerFormat | None:
    """OpenAI's object: text, json_object or json_schema; also the types that rivals added."""
    form = fields.nested(name)
    if form is None:
        return None
    kind = form.raw("type")
    read = _KINDS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise wrong(form.param("type"), "one of " + ", ".join(_KINDS), kind)
    return read(form, fields.param(name))


def _nested_schema(form: Fields, param: str) -> AnswerFormat:
    inner = form.nested("json_schema")
    if inner is None:
        raise wrong(form.param("json_schema"), "an object", None)
    return read_named_schema(inner, param)


def _typed_regex(form: Fields, param: str) -> AnswerFormat:
    name = "pattern" if form.raw("pattern") is not None else "regex"
    return AnswerFormat(FormatKind.REGEX, _some_text(form, name, MAX_EXPRESSION_CHARS), param)


def _typed_grammar(form: Fields, param: str) -> AnswerFormat:
    return AnswerFormat(FormatKind.GRAMMAR, _some_text(form, "grammar", MAX_GRAMMAR_CHARS), param)


_KINDS: Mapping[str, Reader] = {
    "text": lambda *_: None,
    "json_object": lambda _, param: AnswerFormat(FormatKind.JSON_OBJECT, None, param),
    "json_schema": _nested_schema,
    "structural_tag": lambda form, param: AnswerFormat(
        FormatKind.STRUCTURAL_TAG, check_structural_tag(form), param
    ),
    "regex": _typed_regex,
    "grammar": _typed_grammar,
}


def read_named_schema(inner: Fields, param: str) -> AnswerFormat:
    """`{name, description, schema, strict}`, as chats nest it and Responses write it flat."""
    name = inner.text("name")
    if name is None or not NAME.fullmatch(name):
        raise wrong(
            inner.param("name"), "1 to 64 letters, digits, underscores or dashes", inner.raw("name")
        )
    inner.text("description")
    strict = inner.flag("strict")
    if inner.raw("schema") is None:
        raise wrong(inner.param("schema"), "a JSON schema", None)
    schema = check_schema(inner.raw("schema"), inner.param("schema"), strict=strict)
    return AnswerFormat(FormatKind.JSON_SCHEMA, schema, param)


def _structured_outputs(fields: Fields) -> AnswerFormat | None:
    inner = fields.nested("structured_outputs")
    if inner is None:
        return None
    for name, neutral in _STRUCTURED_NEUTRAL.items():
        value = inner.raw(name)
        if value is not None and not (isinstance(value, bool) and value in neutral):
            raise unsupported(inner.param(name))
    unknown = inner.unknown({*_STRUCTURED, *_STRUCTURED_NEUTRAL})
    if unknown:
        raise wrong(inner.path, "only " + ", ".join(_STRUCTURED) + " in it", {})
    given = [read(inner, name) for name, read in _STRUCTURED.items() if inner.raw(name) is not None]
    return _only([each for each in given if each is not None])


def _only(found: list[AnswerFormat]) -> AnswerFormat | None:
    if len(found) > 1:
        raise RequestRejected(
            f"'{found[1].param}' cannot be used together with '{found[0].param}': an answer has one"
            " form.",
            param=found[1].param,
        )
    return found[0] if found else None


def _some_text(fields: Fields, name: str, most: int) -> str:
    text = fields.text(name, most)
    if not text:
        raise wrong(fields.param(name), f"a string of 1 to {most} characters", fields.raw(name))
    return text
