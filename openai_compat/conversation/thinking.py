"""How much a model is to think: what its chat template can be told, and a budget for the engine.

What a model cannot be told is refused, never dropped; where it has no reasoning at all, asking for
none is the one thing that needs no telling.
"""

from collections.abc import Mapping
from functools import partial

from engines.api import Capability, ThinkingBudget
from openai_compat.conversation.ask import Thinking
from openai_compat.errors import RequestRejected
from openai_compat.sampling import require
from openai_compat.served import ServedModel

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_EFFORT = "reasoning_effort"
_SWITCHES = ("enable_thinking", "thinking")  # Qwen, GLM; DeepSeek, Kimi


def check_thinking(thinking: Thinking, model: ServedModel, params: Mapping[str, str]) -> None:
    """Raises `RequestRejected` for what this model cannot be told.

    `params` names the request's field for each of `enabled`, `effort` and `budget` that it uses.
    """
    told = model.template.variables if model.template is not None else frozenset()
    switched = not told.isdisjoint(_SWITCHES)
    thinks = model.syntax.reasoning is not None
    effort, enabled = thinking.effort, thinking.enabled
    heard = switched or _EFFORT in told
    if effort is not None and not heard and (thinks or effort != "none"):
        raise _unheard(params["effort"])
    if enabled is not None and not switched and (thinks or enabled):
        raise _unheard(params["enabled"])
    if thinking.budget is not None:
        if not thinks:
            raise _unheard(params["budget"])
        require(Capability.GUIDES, model, params["budget"])


def thinking_variables(thinking: Thinking, model: ServedModel) -> dict[str, object]:
    """The template variables that say it. Every effort but "none" switches thinking on."""
    template = model.template
    if template is None or thinking == _LEFT_TO_THE_MODEL:
        return {}
    variables: dict[str, object] = {}
    enabled = thinking.enabled
    if thinking.effort is not None:
        variables[_EFFORT] = thinking.effort
        enabled = thinking.effort != "none" if enabled is None else enabled
    if enabled is not None:
        variables |= dict.fromkeys(_SWITCHES, enabled)
    return {name: value for name, value in variables.items() if name in template.variables}


def thinking_budget(
    thinking: Thinking, model: ServedModel, *, opened: bool
) -> ThinkingBudget | None:
    """The budget in tokens; `opened` tells that the prompt ends inside of the reasoning."""
    reasoning = model.syntax.reasoning
    if thinking.budget is None or reasoning is None:
        return None
    encode = partial(model.tokenizer.encode, special=False)
    begin = () if opened else tuple(encode(reasoning.begin))
    return ThinkingBudget(thinking.budget, begin, tuple(encode(reasoning.end)))


_LEFT_TO_THE_MODEL = Thinking()


def _unheard(param: str) -> RequestRejected:
    return RequestRejected(
        f"'{param}' cannot be followed: neither the chat template of this model nor its reasoning"
        " can be told.",
        param=param,
        code="unsupported_by_model",
    )
