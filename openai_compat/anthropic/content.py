"""Content blocks of a request as values: what was said, thought, called and answered."""

from collections.abc import Mapping
from dataclasses import dataclass

from openai_compat.anthropic.notes import Ignored
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.unsupported import Neutral, refuse_unsupported, unsupported

MAX_BLOCKS = 2048
_MAX_ID_CHARS = 256
_MAX_NAME_CHARS = 128
_TEXT_NEUTRAL: Neutral = {"citations": ([],)}
_CALL_NEUTRAL: Neutral = {"toolset_name": ()}
_CACHE = ("ephemeral",)
_TTLS = ("5m", "1h")

# Blocks that Anthropic defines and that hold nothing a model here could read.
_UNREADABLE = frozenset(
    {
        "compaction",
        "container_upload",
        "document",
        "image",
        "mcp_tool_result",
        "mcp_tool_use",
        "search_result",
        "server_tool_use",
        "tool_reference",
    }
)
_SERVER_RESULT = "_tool_result"  # web_search_tool_result and a dozen more


@dataclass(frozen=True, slots=True)
class Said:
    """Text, of either side."""

    param: str
    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model thought; empty where it was redacted."""

    param: str
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call of the model."""

    param: str
    id: str
    name: str
    input: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool answered."""

    param: str
    id: str
    text: str


Block = Said | Thought | Called | Result

_OF_ROLE: Mapping[str, tuple[str, ...]] = {
    "user": ("text", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
ROLES = tuple(_OF_ROLE)


def read_content(fields: Fields, role: str, ignored: Ignored) -> list[Block]:
    """The blocks of one message; a string is short for one of text."""
    given = fields.raw("content")
    if isinstance(given, str):
        return [Said(fields.param("content"), given)]
    if not isinstance(given, list):
        raise wrong(fields.param("content"), "a string or an array of content blocks", given)
    kinds = _OF_ROLE[role]
    blocks: list[Block] = []
    for block in objects(fields, "content", MAX_BLOCKS):
        kind = _kind(block, kinds)
        match kind:
            case "text":
                blocks.append(Said(block.path, _text(block, ignored)))
            case "tool_use":
                blocks.append(_called(block, ignored))
            case "tool_result":
                blocks.append(_result(block, ignored))
            case "thinking":
                blocks.append(Thought(block.path, _required(block, "thinking")))
                block.text("signature")
                ignored.note(block, {"type", "thinking", "signature"})
            case _:
                blocks.append(Thought(block.path, ""))
                block.text("data")
                ignored.note(block, {"type", "data"})
    return blocks


def read_text(fields: Fields, name: str, ignored: Ignored) -> str | None:
    """A string, or text blocks joined by line breaks."""
    given = fields.raw(name)
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise wrong(fields.param(name), "a string or an array of text blocks", given)
    texts = []
    for block in objects(fields, name, MAX_BLOCKS):
        _kind(block, ("text",))
        texts.append(_text(block, ignored))
    return "\n".join(texts)


def objects(fields: Fields, name: str, most: int) -> list[Fields]:
    """The objects of an array."""
    found = []
    for place, value in enumerate(fields.items(name, most) or ()):
        param = f"{fields.param(name)}[{place}]"
        if not isinstance(value, dict):
            raise wrong(param, "an object", value)
        found.append(Fields(value, param))
    return found


def check_cache_control(fields: Fields, ignored: Ignored) -> None:
    """A cache breakpoint: checked, and without effect, for every prompt is cached here."""
    control = fields.nested("cache_control")
    if control is None:
        return
    if control.one_of("type", _CACHE) is None:
        raise wrong(control.param("type"), "one of " + ", ".join(_CACHE), None)
    control.one_of("ttl", _TTLS)
    ignored.note(control, {"type", "ttl"})


def _kind(block: Fields, kinds: tuple[str, ...]) -> str:
    kind = block.raw("type")
    if isinstance(kind, str):
        if kind in kinds:
            return kind
        if kind in _UNREADABLE or (kind.endswith(_SERVER_RESULT) and kind != "tool_result"):
            raise unsupported(block.param("type"))
    raise wrong(block.param("type"), "one of " + ", ".join(kinds) + " here", kind)


def _text(block: Fields, ignored: Ignored) -> str:
    check_cache_control(block, ignored)
    refuse_unsupported(block, _TEXT_NEUTRAL)
    ignored.note(block, {"type", "text", "cache_control", "citations"})
    return _required(block, "text")


def _called(block: Fields, ignored: Ignored) -> Called:
    check_cache_control(block, ignored)
    _check_caller(block)
    refuse_unsupported(block, _CALL_NEUTRAL)
    given = block.raw("input")
    if not isinstance(given, dict):
        raise wrong(block.param("input"), "an object", given)
    ignored.note(block, {"type", "id", "name", "input", "cache_control", "caller", "toolset_name"})
    name = _required(block, "name", _MAX_NAME_CHARS)
    return Called(block.path, _required(block, "id", _MAX_ID_CHARS), name, given)


def _check_caller(block: Fields) -> None:
    caller = block.nested("caller")
    if caller is not None and caller.raw("type") != "direct":
        raise unsupported(block.param("caller"))


def _result(block: Fields, ignored: Ignored) -> Result:
    """Templates have no place for `is_error`, so the text says it."""
    check_cache_control(block, ignored)
    refuse_unsupported(block, _CALL_NEUTRAL)
    ignored.note(
        block, {"type", "tool_use_id", "content", "is_error", "cache_control", "toolset_name"}
    )
    text = read_text(block, "content", ignored) or ""
    if block.flag("is_error"):
        text = f"Error: {text}" if text else "Error"
    return Result(block.path, _required(block, "tool_use_id", _MAX_ID_CHARS), text)


def _required(fields: Fields, name: str, max_chars: int | None = None) -> str:
    text = fields.text(name, max_chars)
    if text is None:
        raise RequestRejected(f"'{fields.param(name)}' is missing.", param=fields.param(name))
    return text
