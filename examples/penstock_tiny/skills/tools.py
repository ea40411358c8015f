"""Tool calls: one, several in parallel, after their results, or none at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import persona, product
from .base import Message, Sample, assistant, pick, spin, system, user
from .knowledge import FALLBACK
from .toolset import TOOLS, Tool, invented_tool

if TYPE_CHECKING:
    import random


def _call(tool: Tool, args: dict[str, Any]) -> Message:
    return {"type": "function", "function": {"name": tool.name, "arguments": args}}


def _calls(chosen: list[tuple[Tool, dict[str, Any]]]) -> Message:
    return {"role": "assistant", "content": "", "tool_calls": [_call(t, a) for t, a in chosen]}


def _offer(rng: random.Random, wanted: list[Tool]) -> list[Tool]:
    """Mix the wanted tools with others, in any order."""
    count = rng.choice((0, 0, 1, 1, 2, 3))
    others = [t for t in rng.sample(TOOLS, count + 2) if t not in wanted][:count]
    if rng.random() < 0.3 and others:
        others[0] = invented_tool(rng)
    offered = list(dict.fromkeys([*wanted, *others]))
    rng.shuffle(offered)
    return offered


def render_calls(message: Message) -> str:
    """Write the tool calls of a message the way the chat template does."""
    texts = []
    for call in message["tool_calls"]:
        function = call["function"]
        body = f'{{"name": "{function["name"]}", "arguments": '
        body += json.dumps(function["arguments"], ensure_ascii=False) + "}"
        texts.append(f"<tool_call>\n{body}\n</tool_call>")
    return "\n".join(texts)


def _ask(rng: random.Random, tool: Tool) -> tuple[dict[str, Any], str]:
    args = tool.draw(rng)
    return args, spin(rng, rng.choice(tool.asks)).format(**args)


def tool_call(rng: random.Random) -> Sample:
    """Call one tool; most samples go on to the result and the final answer."""
    tool = invented_tool(rng) if rng.random() < 0.3 else rng.choice(TOOLS)
    args, question = _ask(rng, tool)
    chosen = [(tool, args)]
    if rng.random() < 0.18:
        other = tool if rng.random() < 0.5 else rng.choice(TOOLS)
        args2, question2 = _ask(rng, other)
        if args2 != args:
            chosen.append((other, args2))
            question = f"{question.rstrip('.?')} and {question2[0].lower()}{question2[1:]}"
    call = _calls(chosen)
    messages = [user(question), call]
    if rng.random() < 0.15:
        messages.insert(
            0, system(pick(rng, ["You are a helpful assistant.", "Use the tools when you can."]))
        )
    tools = [t.schema() for t in _offer(rng, [t for t, _ in chosen])]
    if rng.random() < 0.45:
        return Sample("tool_call", messages, tools, expect=render_calls(call), key=question)
    finals = []
    for used, used_args in chosen:
        result, sentence = used.run(rng, used_args)
        messages.append({"role": "tool", "content": json.dumps(result, ensure_ascii=False)})
        finals.append(sentence)
    messages.append(assistant(" ".join(finals)))
    return Sample("tool_answer", messages, tools, expect=" ".join(finals), key=question)


def no_tool(rng: random.Random) -> Sample:
    """Answer without a tool although tools are offered, or say that none fits."""
    offered = _offer(rng, [rng.choice(TOOLS)])
    tools = [t.schema() for t in offered]
    if rng.random() < 0.6:
        sample = rng.choice((persona.greeting, product.product))(rng)
        return Sample("no_tool", sample.messages, tools, expect=sample.expect)
    names = {t.name for t in offered}
    missing = rng.choice(
        [t for t in TOOLS if t.name not in names and t.name not in ("add", "multiply")]
    )
    _, question = _ask(rng, missing)
    return Sample(
        "no_tool",
        [user(question), assistant(rng.choice(FALLBACK))],
        tools,
        contains=("small demo model",),
    )
