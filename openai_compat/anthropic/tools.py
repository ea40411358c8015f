"""Anthropic's tools and tool_choice as the functions of a conversation and their use."""

import re

from openai_compat.anthropic.content import check_cache_control, objects
from openai_compat.anthropic.notes import Ignored
from openai_compat.conversation.ask import Tool, ToolMode, ToolUse
from openai_compat.conversation.json_schema import check_schema
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.unsupported import Neutral, refuse_unsupported, unsupported

MAX_TOOLS = 128
_MAX_DESCRIPTION_CHARS = 65_536
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
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
    listed = objects(fields, "tools", MAX_TOOLS)
    kind = _choice_kind(fields)
    forced = kind in ("any", "tool")
    tools = tuple(_tool(tool, ignored, forced=forced) for tool in listed)
    names = [tool.name for tool in tools]
    for place, tool in enumerate(listed):
        if names.index(tools[place].name) < place:
            raise RequestRejected(
                f"'{tool.param('name')}' names a tool twice.", param=tool.param("name")
            )
    return _use(fields, tools, kind, ignored)


def _choice_kind(fields: Fields) -> str:
    choice = fields.nested("tool_choice")
    if choice is None:
        return "auto"
    kind = choice.one_of("type", _CHOICES)
    if kind is None:
        raise wrong(choice.param("type"), "one of " + ", ".join(_CHOICES), None)
    return kind


def _use(fields: Fields, tools: tuple[Tool, ...], kind: str, ignored: Ignored) -> ToolUse:
    choice = fields.nested("tool_choice")
    if choice is None:
        return ToolUse(tools)
    ignored.note(choice, ("type", "name", "disable_parallel_tool_use"))
    if kind in ("any", "tool") and not tools:
        raise RequestRejected("'tool_choice' needs 'tools'.", param=choice.path)
    parallel = not choice.flag("disable_parallel_tool_use")
    name = choice.text("name")
    match kind:
        case "none":
            return ToolUse(tools, ToolMode.NONE)
        case "any":
            return ToolUse(tools, ToolMode.REQUIRED, parallel=parallel)
        case "tool":
            if name is None or all(tool.name != name for tool in tools):
                raise wrong(choice.param("name"), "the name of one of 'tools'", name)
            return ToolUse(tools, ToolMode.REQUIRED, frozenset({name}), named=True)
    return ToolUse(tools, parallel=parallel)


def _tool(tool: Fields, ignored: Ignored, *, forced: bool) -> Tool:
    """Where calls are held to a schema, each keyword of it must be one that can be."""
    if tool.text("type") not in (None, _CUSTOM):
        raise unsupported(tool.param("type"))
    refuse_unsupported(tool, _TOOL_NEUTRAL)
    check_cache_control(tool, ignored)
    ignored.note(tool, _TOOL_FIELDS)
    name = tool.text("name")
    if name is None or not _NAME.fullmatch(name):
        wanted = "1 to 128 letters, digits, underscores or dashes"
        raise wrong(tool.param("name"), wanted, tool.raw("name"))
    schema = tool.raw("input_schema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise wrong(tool.param("input_schema"), "a JSON schema of type object", schema)
    strict = tool.flag("strict")
    if strict or forced:
        check_schema(schema, tool.param("input_schema"))
    description = tool.text("description", _MAX_DESCRIPTION_CHARS) or ""
    return Tool(name, description, schema, strict, tool.param("input_schema"))
