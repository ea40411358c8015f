"""The fields that shape the prompt of a chat: template variables, thinking, an unfinished turn."""

import re
from collections.abc import Sequence

from openai_compat.conversation.ask import Message, Thinking
from openai_compat.conversation.thinking import EFFORTS, check_thinking
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.sampling import MAX_TOKENS
from openai_compat.served import ServedModel

PROMPTING_FIELDS = frozenset(
    {
        "add_generation_prompt",
        "chat_template_kwargs",
        "continue_final_message",
        "enable_thinking",
        "reasoning_effort",
        "thinking_budget",
        "thinking_token_budget",
        "verbosity",
    }
)
MAX_TEMPLATE_KWARGS = 16
MAX_KWARG_CHARS = 1024
_NAMEABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LEVELS = ("low", "medium", "high")


def read_thinking(fields: Fields, model: ServedModel) -> Thinking:
    """Raises `RequestRejected` for what this model cannot be told.

    The budget has two names: vLLM's, where -1 is none, and Qwen's.
    """
    param = "thinking_token_budget"
    budget = fields.integer(param, -1, MAX_TOKENS)
    if fields.raw("thinking_budget") is not None:
        param, budget = "thinking_budget", fields.integer("thinking_budget", 0, MAX_TOKENS)
    thinking = Thinking(
        enabled=None if fields.raw("enable_thinking") is None else fields.flag("enable_thinking"),
        effort=fields.one_of("reasoning_effort", EFFORTS),
        budget=None if budget == -1 else budget,
    )
    names = {"enabled": "enable_thinking", "effort": "reasoning_effort", "budget": param}
    check_thinking(thinking, model, {part: fields.param(name) for part, name in names.items()})
    return thinking


def read_template_kwargs(fields: Fields, model: ServedModel) -> dict[str, object]:
    """Values for variables that the model's template reads and the server does not set.

    Raises `RequestRejected` naming the one at fault.
    """
    kwargs = dict(fields.entries("chat_template_kwargs", MAX_TEMPLATE_KWARGS) or {})
    known = model.template.variables if model.template is not None else frozenset()
    param = fields.param("chat_template_kwargs")
    for name, value in kwargs.items():
        # The name is the client's own text: only what looks like one is repeated.
        where = f"{param}.{name}" if _NAMEABLE.fullmatch(name) else param
        if name not in known:
            raise RequestRejected(
                f"'{where}' is not a variable of this model's chat template.", param=where
            )
        _check_scalar(value, where)
    level = fields.one_of("verbosity", _LEVELS)
    if level is not None:
        if "verbosity" in known:
            kwargs.setdefault("verbosity", level)
        elif level != "medium":
            where = fields.param("verbosity")
            raise RequestRejected(
                f"'{where}' cannot be followed: the chat template of this model does not read it.",
                param=where,
                code="unsupported_by_model",
            )
    return kwargs


def read_continuation(fields: Fields, messages: Sequence[Message]) -> tuple[bool, bool]:
    """Whether the last message is to be gone on with, and whether a new turn is opened.

    Raises `RequestRejected`.
    """
    opens = fields.flag("add_generation_prompt", default=True)
    if not fields.flag("continue_final_message"):
        return False, opens
    param = fields.param("continue_final_message")
    if fields.raw("add_generation_prompt") is True:
        raise RequestRejected(
            f"'{param}' and 'add_generation_prompt' exclude each other.", param=param
        )
    if messages[-1]["role"] != "assistant":
        raise RequestRejected(f"'{param}' needs a last message of the assistant.", param=param)
    return True, False


def _check_scalar(value: object, where: str) -> None:
    if isinstance(value, str):
        if len(value) > MAX_KWARG_CHARS:
            raise wrong(where, f"a string of at most {MAX_KWARG_CHARS} characters", value)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise wrong(where, "a string, a number, true, false or null", value)
