"""The grammar of the next turn: what tools, the form of the answer and reasoning make together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from engines.api import Capability, Sampling
from openai_compat.conversation.answer_grammar import (
    ANY,
    Lark,
    escaped,
    is_joint,
    without,
)
from openai_compat.conversation.ask import (
    AnswerFormat,
    Constraint,
    Conversation,
    FormatKind,
    Tool,
    ToolMode,
    ToolUse,
)
from openai_compat.conversation.json_schema import CODE, check_schema, for_grammar
from openai_compat.conversation.structural_tag import Tag
from openai_compat.errors import RequestRejected
from openai_compat.output import lark
from openai_compat.output.syntax import Function, LarkFragment, NotExpressible, ToolSyntax
from openai_compat.served import ServedModel

_BRACKETS = r"\{\["  # what calls without a marker begin with
_SCHEMA_KINDS = (FormatKind.JSON_SCHEMA, FormatKind.JSON_OBJECT, FormatKind.STRUCTURAL_TAG)


def constraint_of(
    conversation: Conversation, model: ServedModel, *, thinking: bool
) -> Constraint | None:
    """The grammar, or None where any text will do. `thinking`: the prompt ends in the reasoning.

    Raises `RequestRejected` for what no grammar can hold the model to.
    """
    use, form = conversation.tool_use, conversation.format
    tools = use.callable_tools
    forced = use.mode is ToolMode.REQUIRED
    if not (form or (tools and (forced or any(tool.strict for tool in tools)))):
        return None
    grammar = Lark(model)
    schemas = _held(tools, forced=forced or form is not None)
    if form is not None and not forced:
        _check_told_apart(form, tools, model.syntax.tools)
        answer = grammar.content(content_of(form, grammar))
        if tools:
            answer = f"({_calls(grammar, use, tools)} | {answer})"
        named = (form.param, _code(form))
        if isinstance(form.value, Mapping):
            schemas = (*schemas, (form.param, form.value))
    else:
        answer = (_calls if forced else _text_or_calls)(grammar, use, tools)
        named = ("tools", CODE)
    before = grammar.reasoning(opened=thinking)
    return Constraint(grammar.source(f"{before} {answer}".strip()), *named, schemas)


def format_constraint(form: AnswerFormat, model: ServedModel) -> Constraint:
    """The grammar of a text that has a form and nothing around it."""
    grammar = Lark(model)
    return Constraint(grammar.source(content_of(form, grammar)), form.param, _code(form))


def suspects(constraint: Constraint) -> Iterator[Constraint]:
    """The schemas of a grammar as grammars of their own, to find which one is at fault."""
    for param, schema in constraint.schemas:
        source = f"start: {lark.json_value(for_grammar(schema))}\n"
        yield Constraint(source, param, CODE)


def constrain(
    sampling: Sampling, conversation: Conversation, model: ServedModel, *, thinking: bool
) -> tuple[Sampling, Constraint | None]:
    """The sampling with the grammar of the turn, where there is one. Raises `RequestRejected`."""
    _check_tools(conversation.tool_use, model)
    constraint = constraint_of(conversation, model, thinking=thinking)
    if constraint is None:
        return sampling, None
    if conversation.continue_final:
        raise _together("continue_final_message", constraint.param)
    return with_grammar(sampling, constraint, model), constraint


def with_grammar(sampling: Sampling, constraint: Constraint, model: ServedModel) -> Sampling:
    """Raises `RequestRejected` where the engine or other fields leave the grammar no way."""
    param = constraint.param
    if Capability.GRAMMAR not in model.info.capabilities:
        raise RequestRejected(
            f"'{param}' needs {Capability.GRAMMAR.value}, which the engine of this model does not"
            " offer.",
            param=param,
            code="unsupported_by_engine",
        )
    if sampling.allowed is not None:
        raise _together("allowed_token_ids", param)
    return replace(sampling, grammar=constraint.source)


def _check_tools(use: ToolUse, model: ServedModel) -> None:
    if use.callable_tools and model.syntax.tools is None:
        raise RequestRejected(
            "This model has no syntax of tool calls: its chat template shows none that is known."
            " Start the server with --tool-parser to name one, or set 'tool_choice' to none.",
            param="tools",
            code="tools_not_supported",
        )


def content_of(form: AnswerFormat, grammar: Lark) -> str:
    """An expression for content of this form."""
    value = form.value
    match form.kind:
        case FormatKind.JSON_OBJECT:
            return grammar.rule("content", lark.json_value({"type": "object"}))
        case FormatKind.JSON_SCHEMA if isinstance(value, Mapping):
            return grammar.rule("content", lark.json_value(for_grammar(value)))
        case FormatKind.REGEX:
            return grammar.rule("content", f"/{_between_slashes(str(value))}/")
        case FormatKind.CHOICE if isinstance(value, Sequence):
            return grammar.rule("content", " | ".join(lark.quoted(str(each)) for each in value))
        case FormatKind.GRAMMAR:
            grammar.subgrammars["content"] = str(value)
            return "@content"
        case FormatKind.STRUCTURAL_TAG if isinstance(value, tuple):
            return _tags(value, grammar)
    raise TypeError(f"{form.kind} of {type(value).__name__}")


def _code(form: AnswerFormat) -> str:
    return CODE if form.kind in _SCHEMA_KINDS else "invalid_grammar"


def _held(tools: Sequence[Tool], *, forced: bool) -> tuple[tuple[str, Mapping[str, object]], ...]:
    """The schemas that calls are held to."""
    return tuple(
        (tool.param, tool.parameters)
        for tool in tools
        if tool.parameters is not None and (forced or tool.strict)
    )


def _calls(grammar: Lark, use: ToolUse, tools: Sequence[Tool]) -> str:
    """An expression for calls of these tools, each held to its schema."""
    return grammar.fragment(_fragment(grammar, use, tools, held=tools))


def _fragment(
    grammar: Lark, use: ToolUse, tools: Sequence[Tool], *, held: Sequence[Tool]
) -> LarkFragment:
    syntax = grammar.model.syntax.tools
    if syntax is None:
        raise TypeError("a model without a syntax of calls has no grammar of them")
    functions = [_function(tool, held=tool in held) for tool in tools]
    parallel = use.parallel and not use.named
    try:
        return syntax.calls(functions, parallel=parallel, special=grammar.special)
    except NotExpressible as error:
        param = next(tool.param for tool in tools if tool.name == error.function)
        raise RequestRejected(
            f"The calls of this model cannot be held to '{error.keyword}' in '{param}'.",
            param=param,
            code=CODE,
        ) from error


def _function(tool: Tool, *, held: bool) -> Function:
    if tool.parameters is None or not held:
        return Function(tool.name, {})
    schema = check_schema(tool.parameters, tool.param, strict=tool.strict)
    return Function(tool.name, for_grammar(schema))


def _text_or_calls(grammar: Lark, use: ToolUse, tools: Sequence[Tool]) -> str:
    """Free text, and calls from where a section of them begins."""
    strict = [tool for tool in tools if tool.strict]
    fragment = _fragment(grammar, use, tools, held=strict)
    calls, syntax = grammar.fragment(fragment), grammar.model.syntax.tools
    markers: Sequence[str] = (fragment.trigger,)
    if is_joint(syntax):
        return f"({calls} | {grammar.content(grammar.text_without('prose', markers))})"
    if not fragment.trigger:
        markers = [text for text in (syntax.specials if syntax else ()) if "_end" not in text]
        return f"({calls} | {grammar.text_without('prose', markers, opening=_BRACKETS)})"
    if grammar.special(fragment.trigger):
        return f"{grammar.text_without('prose', markers)} ({calls})?"
    return f"{grammar.text_beside('prose', fragment.trigger)} ({calls})?"


def _tags(tags: Sequence[Tag], grammar: Lark) -> str:
    """Free text with tags in it, any number of them."""
    triggers = sorted({tag.trigger for tag in tags})
    special = {trigger: _leading_special(trigger, grammar) for trigger in triggers}
    spelled = sorted({token for token in special.values() if token})
    if spelled:
        grammar.text_without("tag_text", spelled)
    else:
        grammar.rule("tag_text", ANY)
    found = []
    for place, trigger in enumerate(triggers):
        rest = " | ".join(
            grammar.rule(f"tag_{place}_{at}", _after(tag, grammar))
            for at, tag in enumerate(tags)
            if tag.trigger == trigger
        )
        token = special[trigger]
        if token:
            head = f"tag_text {grammar.token(token)} {_text(trigger[len(token) :])}"
        else:
            grammar.rule(f"TAG_{place}", f"/(?s:.*){escaped(trigger)}/{without(spelled)}")
            head = grammar.rule(f"tag_{place}_head[lazy]", f"TAG_{place}")
        found.append(grammar.rule(f"tag_{place}", f"{head} ({rest})"))
    return grammar.rule("content", f"({' | '.join(found)})* tag_text")


def _leading_special(trigger: str, grammar: Lark) -> str:
    """The special token that a trigger begins with, if any."""
    lengths = range(len(trigger), 0, -1)
    return next((trigger[:end] for end in lengths if grammar.special(trigger[:end])), "")


def _after(tag: Tag, grammar: Lark) -> str:
    """What follows a tag's trigger."""
    begin = _text(tag.begin.removeprefix(tag.trigger))
    end = grammar.token(tag.end) if grammar.special(tag.end) else _text(tag.end)
    return " ".join(part for part in (begin, lark.json_value(for_grammar(tag.schema)), end) if part)


def _text(text: str) -> str:
    return lark.quoted(text) if text else ""


def _between_slashes(expression: str) -> str:
    """An expression as Lark writes one: slashes and line ends are escaped."""
    pieces, escape = [], False
    for character in expression:
        if character == "\n":
            pieces.append("n" if escape else r"\n")
        else:
            pieces.append(rf"\{character}" if character == "/" and not escape else character)
        escape = character == "\\" and not escape
    return "".join(pieces)


def _check_told_apart(form: AnswerFormat, tools: Sequence[Tool], syntax: ToolSyntax | None) -> None:
    """Calls that look like content from their first character on cannot stand beside a form."""
    if tools and syntax is not None and syntax.name in ("llama3_json", "pythonic"):
        raise RequestRejected(
            f"'{form.param}' cannot be used together with 'tools' on this model, whose calls have"
            " no marker that tells them from content; set 'tool_choice' to none or required.",
            param=form.param,
        )


def _together(name: str, param: str) -> RequestRejected:
    return RequestRejected(
        f"'{name}' cannot be used together with '{param}', which decides on every token.",
        param=name,
    )
