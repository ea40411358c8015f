"""Anthropic's tools and tool_choice as the functions of a conversation and their use."""

from openai_compat.anthropic.content import check_cache_control, objects
from openai_compat.anthropic.notes import Ignored
from openai_compat.conversation.ask import Tool, ToolMode, ToolUse
from openai_compat.conversation.tools import (
    MAX_DESCRIPTION_CHARS,
    MAX_TOOLS,
    check_known,
    check_name,
    check_names,
    read_parameters,
)
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.unsupported import Neutral, refuse_unsupported, unsupported

_MAX_NAME_CHARS = 128
_CUSTOM = "custom"
_CHOICES = ("auto", "any", "tool", "none")

_TOOL_NEUTRAL: Neutral = {
    "allowed_callers": ([], ["direct"]),
    "defer_loading": (False,),
    "eager_input_streaming": (True,),  # arguments always stream as they are made
    "input_examples": ([],),
}
_TOOL_FIELDS = frozenset(
    {"cache_control", "description", "input_schema", "name", "strict", "type", *_TOOL_NEUTRAL}
)


def read_tool_use(fields: Fields, ignored: Ignored) -> ToolUse:
    """Raises `RequestRejected`, also for tools that Anthropic's servers would run themselves."""
    tools = tuple(_tool(tool, ignored) for tool in objects(fields, "tools", MAX_TOOLS))
    check_names(tools, fields.param("tools"))
    choice = fields.nested("tool_choice")
    return ToolUse(tools) if choice is None else _use(choice, tools, ignored)


def _use(choice: Fields, tools: tuple[Tool, ...], ignored: Ignored) -> ToolUse:
    ignored.note(choice, ("type", "name", "disable_parallel_tool_use"))
    kind = choice.one_of("type", _CHOICES)
    parallel = not choice.flag("disable_parallel_tool_use")
    name = choice.text("name")
    match kind:
        case None:
            raise wrong(choice.param("type"), "one of " + ", ".join(_CHOICES), None)
        case "none":
            return ToolUse(tools, ToolMode.NONE)
        case "auto":
            return ToolUse(tools, parallel=parallel)
    if not tools:
        raise RequestRejected("'tool_choice' asks for a call, but there are no 'tools'.",
                              param=choice.path)  # fmt: skip
    if kind == "any":
        return ToolUse(tools, ToolMode.REQUIRED, parallel=parallel)
    known = check_known(name, tools, choice.param("name"))
    return ToolUse(tools, ToolMode.REQUIRED, frozenset({known}), named=True)


def _tool(tool: Fields, ignored: Ignored) -> Tool:
    if tool.text("type") not in (None, _CUSTOM):
        raise unsupported(tool.param("type"))
    refuse_unsupported(tool, _TOOL_NEUTRAL)
    check_cache_control(tool, ignored)
    ignored.note(tool, _TOOL_FIELDS)
    name, schema = tool.raw("name"), read_parameters(tool, "input_schema")
    check_name(name, tool.param("name"), _MAX_NAME_CHARS)
    if schema is None:
        raise wrong(tool.param("input_schema"), "a JSON schema", None)
    return Tool(
        name=str(name),
        description=tool.text("description", MAX_DESCRIPTION_CHARS) or "",
        parameters=schema,
        strict=tool.flag("strict"),
        param=tool.param("input_schema"),
    )
