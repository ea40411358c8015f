"""A conversation to an engine request and to the choices that will read its answer.

The one lowering of every dialect: template, tokens, context, parser.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engines.api import GenerationRequest, RequestId, Sampling
from openai_compat.choice import Choice, Ending
from openai_compat.context import TokenLimit, Truncation, fit, prompt_tokens
from openai_compat.conversation.ask import Constraint, Conversation, Tool
from openai_compat.conversation.constraint import constrain
from openai_compat.conversation.leading_calls import told_apart
from openai_compat.conversation.prompt import prompt_text
from openai_compat.conversation.system_part import shared_part
from openai_compat.conversation.thinking import thinking_budget
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.stage import Parsing
from openai_compat.output.syntax import Function
from openai_compat.sampling import limit_tokens
from openai_compat.served import CallContext, ServedModel
from openai_compat.showing import AS_USUAL, Showing

_CALL_ID_CHARS = 24


@dataclass(frozen=True, slots=True)
class Ask:
    """What applies to the generation besides the conversation."""

    sampling: Sampling
    limit: TokenLimit
    n: int = 1
    stops: tuple[str, ...] = ()
    priority: int = 0
    named_end: Ending | None = None  # of a call that the client named; None: as the model's server
    showing: Showing = AS_USUAL
    truncation: Truncation | None = None
    special: bool = False  # the tokenizer adds its own special tokens to the template's
    separate_reasoning: bool = True  # else it stays in the content, as the model writes it
    extras: Mapping[str, str] = field(default_factory=dict)  # as in GenerationRequest


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
    prompt = prompt_tokens(text, model, special=ask.special, param=param, truncation=ask.truncation)
    thinking = model.syntax.opens_reasoning(text)
    sampling = limit_tokens(ask.sampling, fit(prompt, ask.limit, model, param=param))
    sampling, constraint = constrain(sampling, conversation, model, thinking=thinking)
    budget = thinking_budget(conversation.thinking, model, opened=thinking)
    request = GenerationRequest(
        id=RequestId(call.id),
        prompt=tuple(prompt),
        sampling=sampling if budget is None else replace(sampling, thinking=budget),
        n=ask.n,
        priority=ask.priority,
        cache_salt=call.cache_salt,
        tenant=call.tenant,
        weight=call.weight,
        adapter=model.adapter,
        extras=ask.extras,
        shared=shared_part(conversation, prompt, model, call, special=ask.special),
    )
    after = request.prompt if conversation.continue_final else ()
    choices = tuple(
        _choice(conversation, ask, model, _call_ids(call, place, model), after, thinking=thinking)
        for place in range(ask.n)
    )
    return Lowered(text, request, choices, constraint)


def _choice(
    conversation: Conversation,
    ask: Ask,
    model: ServedModel,
    call_id: Callable[[int], str],
    after: Sequence[int],
    *,
    thinking: bool,
) -> Choice:
    use = conversation.tool_use
    syntax = model.syntax
    if not ask.separate_reasoning:
        syntax, thinking = ModelSyntax(tools=syntax.tools), False
    syntax = told_apart(syntax, conversation)
    parser = syntax.parser(functions(use.callable_tools), thinking=thinking)
    spelled = model.tokenizer.special_tokens if ask.showing.specials else frozenset[int]()
    if parser is not None or not ask.separate_reasoning:
        spelled |= model.spelled_tokens
    parsing = None
    if parser is not None:
        parsing = Parsing(
            parser,
            call_id,
            parallel=use.parallel and not use.named,
            counts_reasoning=syntax.reasoning is not None,
            thinking=thinking,
        )
    return Choice(
        model.tokenizer.detokenizer(after, spelled=spelled),
        ask.stops,
        parsing,
        calls_end=(ask.named_end or model.named_call_end) if use.named else Ending.TOOL_CALLS,
        showing=ask.showing,
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
