"""Functions as a response request lists and chooses them: flat objects, and no built-in tools."""

from openai_compat.conversation.ask import Tool, ToolMode, ToolUse
from openai_compat.conversation.tools import MAX_TOOLS, check_known, check_names, read_function
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.unsupported import Neutral, refuse_unsupported, unsupported

_NEUTRAL: Neutral = {
    "allowed_callers": ([], ["direct"]),
    "async": (False,),
    "defer_loading": (False,),
    "output_schema": (),
}
_WORDS = tuple(mode.value for mode in ToolMode)
_READ = ("type", "name", "description", "parameters", "strict", *_NEUTRAL)


def read_tools(fields: Fields) -> tuple[ToolUse, tuple[str, ...]]:
    """The functions and how they may be used, and the unknown names found in them.

    Raises `RequestRejected`; a built-in tool is refused by its place.
    """
    given = fields.items("tools", MAX_TOOLS) or []
    ignored: dict[str, None] = {}
    tools = tuple(_tool(value, f"tools[{place}]", ignored) for place, value in enumerate(given))
    check_names(tools, "tools")
    parallel = fields.flag("parallel_tool_calls", default=True)
    return _choice(fields, tools, parallel=parallel), tuple(ignored)


def _tool(value: object, param: str, ignored: dict[str, None]) -> Tool:
    fields = _function(value, param)
    refuse_unsupported(fields, _NEUTRAL)
    for name in fields.unknown(_READ):
        ignored["tools." + name.removeprefix(f"{param}.")] = None
    return read_function(fields, param)


def _function(value: object, param: str) -> Fields:
    """An object that is about a function. Raises `RequestRejected`."""
    if not isinstance(value, dict):
        raise wrong(param, "an object", value)
    fields = Fields(value, param)
    kind = fields.raw("type")
    if kind == "function":
        return fields
    if isinstance(kind, str):
        raise unsupported(fields.param("type"), " of another kind than 'function'")
    raise wrong(fields.param("type"), "'function'", kind)


def _choice(fields: Fields, tools: tuple[Tool, ...], *, parallel: bool) -> ToolUse:
    given = fields.raw("tool_choice")
    if isinstance(given, dict):
        return _chosen(Fields(given, "tool_choice"), tools, parallel=parallel)
    if given is not None and given not in _WORDS:
        raise wrong("tool_choice", f"one of {', '.join(_WORDS)}, or an object", given)
    mode = ToolMode.AUTO if given is None else ToolMode(str(given))
    if mode is ToolMode.REQUIRED and not tools:
        raise RequestRejected(
            "'tool_choice' asks for a call, but there are no 'tools'.", param="tool_choice"
        )
    return ToolUse(tools, mode, parallel=parallel)


def _chosen(choice: Fields, tools: tuple[Tool, ...], *, parallel: bool) -> ToolUse:
    if choice.raw("type") == "allowed_tools":
        mode = choice.one_of("mode", ("auto", "required"))
        if mode is None:
            raise wrong(choice.param("mode"), "auto or required", None)
        return ToolUse(tools, ToolMode(mode), _allowed(choice, tools), parallel=parallel)
    _function(dict(choice.values()), choice.path)
    name = check_known(choice.raw("name"), tools, choice.param("name"))
    return ToolUse(tools, ToolMode.REQUIRED, frozenset({name}), named=True, parallel=parallel)


def _allowed(choice: Fields, tools: tuple[Tool, ...]) -> frozenset[str]:
    given = choice.items("tools", MAX_TOOLS)
    param = choice.param("tools")
    if not given:
        raise wrong(param, f"an array of 1 to {MAX_TOOLS} functions", given)
    listed = [_function(value, f"{param}[{place}]") for place, value in enumerate(given)]
    return frozenset(check_known(each.raw("name"), tools, each.param("name")) for each in listed)
