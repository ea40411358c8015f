"""What a client asks of the next turn: messages, tools, the form of the answer, thinking.

Every dialect (chat completions, Responses, Messages) reads its own request into these values, and
one lowering makes the prompt, the grammar and the parser from them. Values are checked by whoever
makes them: nothing below refuses a field it cannot name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Message = Mapping[str, object]  # as chat templates take it: role, content (a string), and more


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. `parameters` is its JSON schema; None takes any object."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] | None = None
    strict: bool = False  # arguments are held to the schema also where calls are not forced
    param: str = "tools"  # the field that holds the schema

    def for_template(self) -> dict[str, object]:
        """As chat templates list it."""
        function: dict[str, object] = {"name": self.name, "description": self.description}
        if self.parameters is not None:
            function["parameters"] = self.parameters
        return {"type": "function", "function": function}


class ToolMode(StrEnum):
    """Whether the next turn calls functions."""

    AUTO = "auto"  # as the model likes
    NONE = "none"
    REQUIRED = "required"  # at least one call


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The functions of a conversation, and how the next turn may use them."""

    tools: tuple[Tool, ...] = ()
    mode: ToolMode = ToolMode.AUTO
    allowed: frozenset[str] | None = None  # names that may be called; None: all
    named: bool = False  # REQUIRED of exactly one, which the client named
    parallel: bool = True  # several calls in one turn

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that may be called now."""
        if self.mode is ToolMode.NONE:
            return ()
        return tuple(t for t in self.tools if self.allowed is None or t.name in self.allowed)


class FormatKind(StrEnum):
    """How the content of the answer is constrained."""

    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"  # value: the schema
    REGEX = "regex"  # value: the expression
    GRAMMAR = "grammar"  # value: Lark text, as llguidance takes it
    CHOICE = "choice"  # value: a list of strings
    STRUCTURAL_TAG = "structural_tag"  # value: a tuple of structural_tag.Tag


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """The constraint on the content; `param` is the field a refusal names."""

    kind: FormatKind
    value: object
    param: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """How much the model thinks before it answers; None leaves it to the model."""

    enabled: bool | None = None
    effort: str | None = None
    budget: int | None = None  # tokens, after which the reasoning is closed


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages so far and what is asked of the next one."""

    messages: tuple[Message, ...]
    tool_use: ToolUse = ToolUse()
    format: AnswerFormat | None = None
    thinking: Thinking = Thinking()
    template_kwargs: Mapping[str, object] = field(default_factory=dict)
    continue_final: bool = False  # go on with the last message, which is the assistant's
    continue_param: str = "continue_final_message"  # the field that asked for it
    add_generation_prompt: bool = True
    param: str = "messages"  # the field a refusal of the conversation names


@dataclass(frozen=True, slots=True)
class Constraint:
    """A grammar the answer keeps to, for the engine; `param` is the field it came from."""

    source: str  # what llguidance takes
    param: str
    code: str = "invalid_grammar"  # of the refusal, where it cannot be compiled
    schemas: tuple[tuple[str, Mapping[str, object]], ...] = ()  # in it, by the field of each
