"""Tools of a chat request: `tools`, `tool_choice`, `parallel_tool_calls`, and calls in messages."""

import re
from collections.abc import Mapping

import msgspec

from openai_compat.body import parse_body
from openai_compat.conversation.ask import Tool, ToolMode, ToolUse
from openai_compat.conversation.json_schema import MAX_SCHEMA_BYTES
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, describe, wrong
from openai_compat.unsupported import unsupported

MAX_TOOLS = 128
MAX_CALLS = 128  # in one message
MAX_DESCRIPTION_CHARS = 16_384
MAX_NAME_CHARS = 64
MAX_ID_CHARS = 256

TOOL_FIELDS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
_OTHER_TOOLS = ("custom", "web_search", "web_search_preview", "file_search", "code_interpreter")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def read_tool_use(fields: Fields) -> ToolUse:
    """The tools and how they may be used. Raises `RequestRejected` naming the place."""
    if all(fields.raw(name) is None for name in TOOL_FIELDS):
        return ToolUse()
    given = fields.items("tools", MAX_TOOLS) or []
    tools = tuple(
        _read_tool(value, f"{fields.param('tools')}[{place}]") for place, value in enumerate(given)
    )
    check_names(tools, fields.param("tools"))
    parallel = fields.raw("parallel_tool_calls") is None or fields.flag("parallel_tool_calls")
    return _choice(fields, tools, parallel=parallel)


def read_function(function: Fields, param: str) -> Tool:
    """`{name, description, parameters, strict}`, as chats nest it and Responses write it flat.

    `param` is what a refusal of the whole names.
    """
    name = function.raw("name")
    check_name(name, function.param("name"), MAX_NAME_CHARS)
    parameters = read_parameters(function, "parameters")
    return Tool(
        name=str(name),
        description=function.text("description", MAX_DESCRIPTION_CHARS) or "",
        parameters=parameters,
        strict=function.flag("strict"),
        param=param if parameters is None else function.param("parameters"),
    )


def read_parameters(function: Fields, name: str) -> Mapping[str, object] | None:
    """The JSON schema of a function's arguments, an object; checked further where it must hold."""
    given = function.nested(name)
    if given is None:
        return None
    parameters = function.raw(name)
    size = len(msgspec.json.encode(parameters))
    if size > MAX_SCHEMA_BYTES:
        raise RequestRejected(
            f"'{given.path}' has {size} bytes; the limit is {MAX_SCHEMA_BYTES}.", param=given.path
        )
    if not isinstance(parameters, dict) or given.raw("type") not in (None, "object"):
        raise wrong(given.param("type"), "'object': arguments have names", given.raw("type"))
    return parameters


def check_name(name: object, param: str, most: int) -> None:
    """Raises `RequestRejected` for what cannot be a function's name."""
    if not isinstance(name, str) or len(name) > most or not _NAME.fullmatch(name):
        raise wrong(param, f"1 to {most} letters, digits, underscores or dashes", name)


def check_names(tools: tuple[Tool, ...], param: str) -> None:
    """Raises `RequestRejected` for two tools of one name."""
    seen: set[str] = set()
    for place, tool in enumerate(tools):
        if tool.name in seen:
            raise RequestRejected(
                f"'{param}[{place}]' has the name of an earlier tool.", param=f"{param}[{place}]"
            )
        seen.add(tool.name)


def check_known(name: object, tools: tuple[Tool, ...], param: str) -> str:
    """The name of one of the tools. Raises `RequestRejected`."""
    if not isinstance(name, str) or all(tool.name != name for tool in tools):
        raise RequestRejected(
            f"Invalid value for '{param}': expected the name of one of the tools, got"
            f" {describe(name)}.",
            param=param,
        )
    return name


def read_calls(message: Fields) -> list[dict[str, object]]:
    """`tool_calls` of an assistant's message, as chat templates take them.

    Arguments become an object, which templates write as they like; text that is none stays.
    """
    given = message.items("tool_calls", MAX_CALLS) or []
    return [
        _read_call(value, f"{message.param('tool_calls')}[{place}]")
        for place, value in enumerate(given)
    ]


def arguments_object(text: str) -> object:
    """The object that the arguments of a call spell; the text where they spell none.

    What a body may not hold (a million arrays, numbers that take seconds to read) is none either.
    """
    if not text.strip():
        return {}
    try:
        return parse_body(text.encode())
    except RequestRejected:
        return text


def _read_tool(value: object, param: str) -> Tool:
    if not isinstance(value, dict):
        raise wrong(param, "an object", value)
    tool = Fields(value, param)
    _check_kind(tool)
    function = tool.nested("function")
    if function is None:
        raise wrong(tool.param("function"), "an object", None)
    return read_function(function, param)


def _check_kind(fields: Fields) -> None:
    kind = fields.raw("type")
    if kind in _OTHER_TOOLS:
        raise unsupported(fields.param("type"), " with this value (only 'function' is)")
    if kind != "function":
        raise wrong(fields.param("type"), "'function'", kind)


def _choice(fields: Fields, tools: tuple[Tool, ...], *, parallel: bool) -> ToolUse:
    choice, param = fields.raw("tool_choice"), fields.param("tool_choice")
    if isinstance(choice, dict):
        return _chosen(Fields(choice, param), tools, parallel=parallel)
    words = [mode.value for mode in ToolMode]
    if choice is not None and choice not in words:
        raise wrong(param, f"one of {', '.join(words)}, or an object", choice)
    mode = ToolMode.AUTO if choice is None else ToolMode(str(choice))
    if mode is ToolMode.REQUIRED and not tools:
        raise RequestRejected(f"'{param}' asks for a call, but there are no 'tools'.", param=param)
    return ToolUse(tools, mode, parallel=parallel)


def _chosen(choice: Fields, tools: tuple[Tool, ...], *, parallel: bool) -> ToolUse:
    if choice.raw("type") == "allowed_tools":
        inner = choice.nested("allowed_tools") or Fields({}, choice.param("allowed_tools"))
        mode = inner.raw("mode")
        if mode not in ("auto", "required"):
            raise wrong(inner.param("mode"), "auto or required", mode)
        return ToolUse(tools, ToolMode(str(mode)), _allowed(inner, tools), parallel=parallel)
    _check_kind(choice)
    name = _named(choice, tools)
    return ToolUse(tools, ToolMode.REQUIRED, frozenset({name}), named=True, parallel=parallel)


def _allowed(fields: Fields, tools: tuple[Tool, ...]) -> frozenset[str]:
    given = fields.items("tools", MAX_TOOLS)
    if not given:
        raise wrong(fields.param("tools"), f"an array of 1 to {MAX_TOOLS} tools", given)
    names = set()
    for place, value in enumerate(given):
        param = f"{fields.param('tools')}[{place}]"
        if not isinstance(value, dict):
            raise wrong(param, "an object", value)
        _check_kind(Fields(value, param))
        names.add(_named(Fields(value, param), tools))
    return frozenset(names)


def _named(fields: Fields, tools: tuple[Tool, ...]) -> str:
    function = fields.nested("function") or Fields({}, fields.param("function"))
    return check_known(function.raw("name"), tools, function.param("name"))


def _read_call(value: object, param: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise wrong(param, "an object", value)
    call = Fields(value, param)
    if call.raw("type") is not None:
        _check_kind(call)
    function = call.nested("function")
    if function is None:
        raise wrong(call.param("function"), "an object", None)
    name = function.raw("name")
    if not isinstance(name, str) or not name:
        raise wrong(function.param("name"), "a string that is not empty", name)
    arguments = function.raw("arguments")
    if not isinstance(arguments, str) and arguments is not None:
        raise wrong(function.param("arguments"), "JSON as a string", arguments)
    return {
        "id": call.text("id", MAX_ID_CHARS) or "",
        "type": "function",
        "function": {"name": name, "arguments": arguments_object(arguments or "")},
    }
