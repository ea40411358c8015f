"""Texts that models write, one syntax after the other, and what should be found in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from openai_compat.output.delta import (
    CallArguments,
    CallBegin,
    CallEnd,
    Delta,
    OutputParser,
    Reasoning,
    Text,
)
from openai_compat.output.registry import reasoning_syntaxes, tool_syntaxes
from openai_compat.output.syntax import Function, compose

WEATHER = Function(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "exact": {"type": "boolean"},
            "where": {"type": "object", "properties": {"lat": {"type": "number"}}},
            "tags": {"type": "array", "items": {"type": "string"}},
            "unit": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "limit": {"type": ["integer", "string"]},
        },
        "required": ["city"],
    },
)
NOW = Function("now", {"type": "object", "properties": {}})
FREE = Function("free", {})
FUNCTIONS = (WEATHER, NOW, FREE)


@dataclass
class Found:
    """Everything in an output, joined."""

    content: str = ""
    reasoning: str = ""
    calls: list[list[object]] = field(default_factory=list)  # name, id, arguments, whole
    parts: list[str] = field(default_factory=list)  # the order they came in


def joined(deltas: Sequence[Delta]) -> Found:
    """The deltas added up; refuses what the contract of deltas does not allow."""
    found = Found()
    running = False
    for delta in deltas:
        match delta:
            case Text(text):
                assert text
                found.content += text
                part = "text"
            case Reasoning(text):
                assert text
                found.reasoning += text
                part = "reasoning"
            case CallBegin(index, name, call_id):
                assert index == len(found.calls)
                found.calls.append([name, call_id, "", False])
                running, part = True, f"call {index}"
            case CallArguments(index, text):
                assert text
                assert running
                assert index == len(found.calls) - 1
                found.calls[-1][2] += text
                part = f"call {index}"
            case CallEnd(index):
                assert running
                assert index == len(found.calls) - 1
                found.calls[-1][3] = True
                running, part = False, f"call {index}"
        if found.parts[-1:] != [part]:
            found.parts.append(part)
    return found


def run(parser: OutputParser, pieces: Sequence[str]) -> Found:
    """What a parser finds in a text that comes in these pieces."""
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return joined([*deltas, *parser.finish()])


def parser_of(name: str, functions: Sequence[Function] = FUNCTIONS, *, opened: bool = False):
    """A parser by name: of tools, of reasoning as `think:NAME`, or of both as `NAME+NAME`."""
    reasoning, tools = reasoning_syntaxes(), tool_syntaxes()
    first, _, second = name.partition("+")
    if second:
        return compose(reasoning[first], tools[second], functions, open=opened)
    if name.startswith("think:"):
        return compose(reasoning[name.removeprefix("think:")], None, (), open=opened)
    return compose(None, tools[name], functions, open=False)


_D = {
    "begin": "<｜tool▁calls▁begin｜>",  # noqa: RUF001
    "end": "<｜tool▁calls▁end｜>",  # noqa: RUF001
    "call": "<｜tool▁call▁begin｜>",  # noqa: RUF001
    "call_end": "<｜tool▁call▁end｜>",  # noqa: RUF001
    "sep": "<｜tool▁sep｜>",  # noqa: RUF001
}
_CITY = '{"city": "Besançon \\"B\\"", "days": [1, 2.5e3, {"a": null}]}'


def row(name: str, text: str, content: str, reasoning: str, calls: list[tuple[str, str, str]]):
    """A parser, what it reads, and what it finds; of a call its name, id and arguments."""
    return name, text, content, reasoning, calls


OUTPUTS = [
    row(
        "hermes",
        f'Let me look.\n<tool_call>\n{{"name": "get_weather", "arguments": {_CITY}}}\n</tool_call>',
        "Let me look.",
        "",
        [("get_weather", "", _CITY)],
    ),
    row(
        "hermes",
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n<tool_call>\n'
        '{"arguments": {"a": "</tool_call>"}, "name": "free"}\n</tool_call>\n',
        "",
        "",
        [("now", "", "{}"), ("free", "", '{"a": "</tool_call>"}')],
    ),
    row(
        "hermes",
        '<tool_call>{"name": "now"}</tool_call> and then',
        " and then",
        "",
        [("now", "", "{}")],
    ),
    row(
        "hermes",
        '<tool_call>{"arguments": {"a": 1}, "arguments": {"b": 2}, "name": "free"}</tool_call>',
        "",
        "",
        [("free", "", '{"a": 1}')],
    ),
    row(
        "llama3_json",
        f'{{"name": "get_weather", "parameters": {_CITY}}}; {{"name": "now", "parameters": {{}}}}',
        "",
        "",
        [("get_weather", "", _CITY), ("now", "", "{}")],
    ),
    row(
        "llama3_json",
        '<|python_tag|>{"type": "function", "name": "free", "parameters": {"a": [[]]}}',
        "",
        "",
        [("free", "", '{"a": [[]]}')],
    ),
    row(
        "llama3_json",
        'So: <|python_start|>{"name": "now", "parameters": {}}<|python_end|>',
        "So: ",
        "",
        [("now", "", "{}")],
    ),
    row(
        "pythonic",
        '[get_weather(city="a\\tb\\"c\\u00e9", days=-3, exact=True, tags=["x", \'y\'],'
        ' where={"lat": 1.5, }), now()]',
        "",
        "",
        [
            (
                "get_weather",
                "",
                (
                    '{"city": "a\\tb\\"c\\u00e9", "days": -3, "exact": true, "tags": ["x", "y"],'
                    ' "where": {"lat": 1.5}}'
                ),
            ),
            ("now", "", "{}"),
        ],
    ),
    row(
        "pythonic",
        "Yes <|python_start|>[get_weather(city='x', days=\"4\", unit=None)]<|python_end|>",
        "Yes ",
        "",
        [("get_weather", "", '{"city": "x", "days": 4, "unit": null}')],
    ),
    row(
        "mistral",
        f'Well[TOOL_CALLS] [{{"name": "get_weather", "arguments": {_CITY}}}, '
        '{"name": "now", "arguments": {}, "id": "abcdefghi"}]',
        "Well",
        "",
        [("get_weather", "", _CITY), ("now", "", "{}")],
    ),
    row(
        "mistral",
        '[TOOL_CALLS]free[ARGS]{"a": "[ARGS]"}[TOOL_CALLS]now[CALL_ID]a1b2c3d4e[ARGS]{}',
        "",
        "",
        [("free", "", '{"a": "[ARGS]"}'), ("now", "a1b2c3d4e", "{}")],
    ),
    row("mistral", '[TOOL_CALLS]free{"a": 1}', "", "", [("free", "", '{"a": 1}')]),
    row(
        "deepseek_v3",
        "Hm{begin}{call}function{sep}free\n```json\n{{}}\n```{call_end}\n{call}function{sep}"
        'get_weather\n```json\n{{"city": "`"}}\n```{call_end}{end}'.format(**_D),
        "Hm",
        "",
        [("free", "", "{}"), ("get_weather", "", '{"city": "`"}')],
    ),
    row(
        "deepseek_v31",
        '{begin}{call}free{sep}{{"a": 1}}{call_end}{call}now{sep}{{}}{call_end}{end}'.format(**_D),
        "",
        "",
        [("free", "", '{"a": 1}'), ("now", "", "{}")],
    ),
    row(
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.free:0"
        '<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_call_begin|>functions.now:1'
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        "",
        "",
        [("free", "functions.free:0", '{"a": 1}'), ("now", "functions.now:1", "{}")],
    ),
    row(
        "glm",
        'First\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>a "b"\n</b>'
        "</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n<arg_key>tags</arg_key>"
        '\n<arg_value>["</arg_value>"]</arg_value>\n<arg_key>unit</arg_key>\n<arg_value>null'
        "</arg_value>\n<arg_key>limit</arg_key>\n<arg_value>ten</arg_value>\n</tool_call>",
        "First",
        "",
        [
            (
                "get_weather",
                "",
                (
                    '{"city": "a \\"b\\"\\n</b>", "days": 3, "tags": ["</arg_value>"],'
                    ' "unit": null, "limit": "ten"}'
                ),
            )
        ],
    ),
    row(
        "glm",
        "<tool_call>now</tool_call><tool_call>free<arg_key>x</arg_key><arg_value>1</arg_value>"
        "</tool_call>",
        "",
        "",
        [("now", "", "{}"), ("free", "", '{"x": 1}')],
    ),
    row(
        "xml",
        "Go\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nrow 1\n\nrow \\2\n"
        "</parameter>\n<parameter=exact>\nTrue\n</parameter>\n<parameter=where>\n"
        '{"lat": 1}\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n'
        "</function>\n</tool_call>",
        "Go",
        "",
        [
            (
                "get_weather",
                "",
                '{"city": "row 1\\n\\nrow \\\\2", "exact": true, "where": {"lat": 1}}',
            ),
            ("now", "", "{}"),
        ],
    ),
    row(
        "harmony+harmony",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>analysis<|message|>"
        "So.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>"
        "assistant<|channel|>commentary to=functions.free <|constrain|>json<|message|>"
        '{"a": 1}<|call|>',
        "I look.",
        "Hm.\nSo.",
        [("free", "", '{"a": 1}')],
    ),
    row(
        "harmony+harmony",
        " to=functions.now<|channel|>commentary json<|message|>{}",
        "",
        "",
        [("now", "", "{}")],
    ),
    row(
        "harmony+harmony",
        "<|channel|>final<|message|>It is <b> and < | done.<|return|>",
        "It is <b> and < | done.",
        "",
        [],
    ),
    row("think:think", "<think>\na\n\nb\n</think>\n\nHi <think>", "Hi <think>", "a\n\nb", []),
    row("think:mistral", "[THINK]a[/THINK]Hi", "Hi", "a", []),
    row("think:kimi", "◁think▷a◁/think▷Hi", "Hi", "a", []),
    row(
        "think+hermes",
        '<think>\nI call <tool_call>.\n</think>\n\n<tool_call>\n{"name": "now", "arguments": {}}\n'
        "</tool_call>",
        "",
        "I call <tool_call>.",
        [("now", "", "{}")],
    ),
    row(
        "think+glm",
        "\n<think></think>\nHello\n<tool_call>now\n</tool_call>",
        "Hello",
        "",
        [("now", "", "{}")],
    ),
]
