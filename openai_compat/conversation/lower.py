"""A conversation to an engine request and to the choices that will read its answer.

The one lowering of every dialect: template, tokens, context, parser.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engines.api import GenerationRequest, RequestId, Sampling
from openai_compat.choice import Choice, Ending
from openai_compat.context import TokenLimit, encode_prompt, fit
from openai_compat.conversation.ask import Constraint, Conversation, Tool
from openai_compat.conversation.prompt import prompt_text
from openai_compat.output.stage import Parsing
from openai_compat.output.syntax import Function
from openai_compat.sampling import limit_tokens
from openai_compat.served import CallContext, ServedModel

_CALL_ID_CHARS = 24


@dataclass(frozen=True, slots=True)
class Ask:
    """What applies to the generation besides the conversation."""

    sampling: Sampling
    limit: TokenLimit
    n: int = 1
    stops: tuple[str, ...] = ()
    priority: int = 0
    named_end: Ending = Ending.STOP  # OpenAI ends a call that the client named with "stop"


@dataclass(frozen=True, slots=True)
class Lowered:
    """What runs, and what reads it."""

    prompt: str
    request: GenerationRequest
    choices: tuple[Choice, ...]
    constraint: Constraint | None = None


def lower_conversation(
    conversation: Conversation, ask: Ask, model: ServedModel, call: CallContext
) -> Lowered:
    """Raises `RequestRejected`; starts nothing.

    A template that fails for another reason than the conversation raises `TemplateBroken`.
    """
    param = conversation.param
    text = prompt_text(conversation, model, call)
    prompt = encode_prompt(text, model, special=False, param=param)
    request = GenerationRequest(
        id=RequestId(call.id),
        prompt=tuple(prompt),
        sampling=limit_tokens(ask.sampling, fit(prompt, ask.limit, model, param=param)),
        n=ask.n,
        priority=ask.priority,
        cache_salt=call.cache_salt,
    )
    thinking = model.syntax.opens_reasoning(text)
    choices = tuple(
        _choice(conversation, ask, model, _call_ids(call, place, model), thinking=thinking)
        for place in range(ask.n)
    )
    return Lowered(text, request, choices)


def _choice(
    conversation: Conversation,
    ask: Ask,
    model: ServedModel,
    call_id: Callable[[int], str],
    *,
    thinking: bool,
) -> Choice:
    use = conversation.tool_use
    parser = model.syntax.parser(functions(use.callable_tools), thinking=thinking)
    if parser is None:
        return Choice(model.tokenizer.detokenizer(), ask.stops)
    parsing = Parsing(
        parser,
        call_id,
        parallel=use.parallel and not use.named,
        counts_reasoning=model.syntax.reasoning is not None,
        thinking=thinking,
    )
    return Choice(
        model.tokenizer.detokenizer(spelled=model.spelled_tokens),
        ask.stops,
        parsing,
        calls_end=ask.named_end if use.named else Ending.TOOL_CALLS,
    )


def functions(tools: Sequence[Tool]) -> list[Function]:
    """The tools as parsers and grammars take them."""
    empty: Mapping[str, object] = {}
    return [Function(tool.name, tool.parameters or empty) for tool in tools]


def _call_ids(call: CallContext, choice: int, model: ServedModel) -> Callable[[int], str]:
    """Ids of tool calls, made from the call's id so that any replica gives the same ones."""
    tools = model.syntax.tools
    length = tools.id_length if tools is not None else 0

    def call_id(index: int) -> str:
        seen = f"{call.id}/{choice}/{index}".encode()
        digest = hashlib.blake2b(seen, digest_size=_CALL_ID_CHARS // 2).hexdigest()
        return digest[:length] if length else f"call_{digest}"

    return call_id
