"""The fields of a messages request: what is known, what is neutral, what is refused."""

from dataclasses import dataclass, replace

from openai_compat.anthropic.content import check_cache_control, read_text
from openai_compat.anthropic.notes import Ignored
from openai_compat.anthropic.tools import read_tool_use
from openai_compat.anthropic.turns import read_turns
from openai_compat.conversation.ask import (
    AnswerFormat,
    Conversation,
    FormatKind,
    Thinking,
    ToolMode,
)
from openai_compat.conversation.json_schema import check_schema
from openai_compat.conversation.thinking import check_thinking, thinking_variables
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.sampling import MAX_TOKENS
from openai_compat.served import ServedModel
from openai_compat.unsupported import Neutral, refuse_unsupported, unsupported

MAX_STOPS = 16
MAX_STOP_BYTES = 256
_MAX_USER_CHARS = 512
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_ON = Thinking(enabled=True)
_DEFAULT_EFFORT = "high"
_THINKING_PARAMS = {
    "enabled": "thinking.type",
    "effort": "output_config.effort",
    "budget": "thinking.budget_tokens",
}
_THINKING = ("enabled", "disabled", "adaptive", "between_tools")
_DISPLAYS = ("summarized", "omitted")

_KEEP_ALL = {"type": "clear_thinking_20251015", "keep": "all"}  # edits nothing
SAMPLING = ("temperature", "top_k", "top_p")
_CONVERSATION = frozenset(
    {
        "cache_control",
        "messages",
        "model",
        "output_config",
        "output_format",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    }
)
_CALL = frozenset({"max_tokens", "metadata", "service_tier", "stop_sequences", "stream", *SAMPLING})

UNSUPPORTED: Neutral = {
    "billing_policy": (),
    "compaction": (),
    "container": (),
    "context_management": ({"edits": []}, {"edits": [_KEEP_ALL]}),
    "diagnostics": (),
    "fallback_credit_token": (),
    "fallbacks": ([],),
    "inference_geo": (),
    "mcp_servers": ([],),
    "speed": ("standard",),
    "thread": (),
}

KNOWN = _CALL | _CONVERSATION | UNSUPPORTED.keys()
KNOWN_TO_COUNT = _CONVERSATION | UNSUPPORTED.keys()


@dataclass(frozen=True, slots=True)
class Asked:
    """The conversation of a request. `omit_thinking`: its thoughts are not to be shown."""

    conversation: Conversation
    omit_thinking: bool


def read_conversation(fields: Fields, model: ServedModel, ignored: Ignored) -> Asked:
    """What both routes read. Raises `RequestRejected` naming the field at fault."""
    _check_thread(fields)
    refuse_unsupported(fields, UNSUPPORTED)
    check_cache_control(fields, ignored)
    turns = read_turns(fields, ignored)
    system = read_text(fields, "system", ignored)
    lead = ({"role": "system", "content": system},) if system else ()
    config = fields.nested("output_config") or Fields({})
    if config.raw("task_budget") is not None:
        raise unsupported(config.param("task_budget"))
    ignored.note(config, ("effort", "format", "task_budget"))
    thinking = fields.nested("thinking") or Fields({})
    ignored.note(thinking, ("type", "budget_tokens", "display"))
    conversation = Conversation(
        messages=(*lead, *turns.messages),
        tool_use=read_tool_use(fields, ignored),
        format=_format(fields, config),
        thinking=_thinking(thinking, config.one_of("effort", _EFFORTS), model),
        continue_final=turns.prefill,
        continue_param="messages",
    )
    _check_prefill(conversation)
    return Asked(conversation, thinking.one_of("display", _DISPLAYS) == "omitted")


def _check_thread(fields: Fields) -> None:
    """Under this code the SDK's tool runner goes on by itself, with the whole conversation."""
    if fields.raw("thread") is not None:
        raise RequestRejected(
            "This server holds no threads: send the whole conversation without 'thread'.",
            param="thread",
            code="thread_unsupported_request",
        )


def _check_prefill(conversation: Conversation) -> None:
    """A grammar decides on the answer from its first token, which here is said already."""
    use, form = conversation.tool_use, conversation.format
    held = use.mode is ToolMode.REQUIRED or any(tool.strict for tool in use.callable_tools)
    if conversation.continue_final and (form is not None or held):
        raise RequestRejected(
            "A last message of the assistant is continued, which cannot be done under a grammar:"
            " leave it out, or 'output_config.format', a forced 'tool_choice' and strict 'tools'.",
            param="messages",
        )


def check_labels(fields: Fields, ignored: Ignored) -> None:
    """Fields that label a call and change nothing in its answer; still checked."""
    metadata = fields.nested("metadata") or Fields({})
    metadata.text("user_id", _MAX_USER_CHARS)
    ignored.note(metadata, ("user_id",))
    fields.one_of("service_tier", ("auto", "standard_only"))


def read_max_tokens(fields: Fields) -> int:
    """Required, as Anthropic has it."""
    most = fields.integer("max_tokens", 1, MAX_TOKENS)
    if most is None:
        raise RequestRejected("'max_tokens' is missing.", param="max_tokens")
    return most


def check_budget(fields: Fields, max_tokens: int) -> None:
    """Thinking is part of the answer, so its budget must leave room for the rest."""
    thinking = fields.nested("thinking") or Fields({})
    budget = thinking.integer("budget_tokens", 1, MAX_TOKENS)
    if budget is not None and budget >= max_tokens:
        raise wrong(thinking.param("budget_tokens"), f"less than max_tokens, {max_tokens}", budget)


def read_stops(fields: Fields) -> tuple[str, ...]:
    """The stop sequences."""
    stops = fields.items("stop_sequences", MAX_STOPS) or []
    for place, stop in enumerate(stops):
        if not isinstance(stop, str) or not 0 < len(stop.encode()) <= MAX_STOP_BYTES:
            wanted = f"a string of 1 to {MAX_STOP_BYTES} bytes"
            raise wrong(f"{fields.param('stop_sequences')}[{place}]", wanted, stop)
    return tuple(str(stop) for stop in stops)


def _thinking(thinking: Fields, effort: str | None, model: ServedModel) -> Thinking:
    kind = thinking.one_of("type", _THINKING)
    budget = thinking.integer("budget_tokens", 1, MAX_TOKENS)
    if kind is None and thinking.path:
        raise wrong(thinking.param("type"), "one of " + ", ".join(_THINKING), None)
    if kind == "between_tools":
        raise unsupported(thinking.param("type"), " with this value")
    if (kind == "enabled") is (budget is None):
        wanted = "a number of tokens" if budget is None else "nothing unless 'type' is enabled"
        raise wrong(thinking.param("budget_tokens"), wanted, budget)
    enabled = {"enabled": True, "disabled": False}.get(kind or "")
    asked = Thinking(enabled, effort, budget)
    if enabled and model.syntax.reasoning and not thinking_variables(_ON, model):
        asked = replace(asked, enabled=None)  # it thinks whatever it is told
    if effort == _DEFAULT_EFFORT and not thinking_variables(Thinking(effort=effort), model):
        asked = replace(asked, effort=None)  # the same as not to ask
    check_thinking(asked, model, _THINKING_PARAMS)
    return asked


def _format(fields: Fields, config: Fields) -> AnswerFormat | None:
    """The schema of the answer; `output_format` is the older place of it."""
    older, newer = fields.nested("output_format"), config.nested("format")
    if older is not None and newer is not None:
        raise RequestRejected(
            "'output_format' and 'output_config.format' are the same thing; send one.",
            param="output_format",
        )
    given = newer or older
    if given is None:
        return None
    if given.one_of("type", ("json_schema",)) is None:
        raise wrong(given.param("type"), "json_schema", None)
    param = given.param("schema")
    return AnswerFormat(FormatKind.JSON_SCHEMA, check_schema(given.raw("schema"), param), param)
