"""Cost of the output parsers: per token of plain text, and on hostile outputs of a mebibyte.

    python -m benchmarks.parsers [SYNTAX ...]

For every syntax and case it prints seconds at half a mebibyte and at one, and their ratio: linear
work doubles. Pieces are of one character, of a token's size, or the whole text at once.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence

from openai_compat.output.delta import OutputParser
from openai_compat.output.registry import reasoning_syntaxes, tool_syntaxes
from openai_compat.output.syntax import Function, compose

SIZE = 1 << 20
GOAL = 2.3
FUNCTIONS = (
    Function("f", {"type": "object", "properties": {"s": {"type": "string"}, "o": {}}}),
    Function("g", {}),
)
BAR = "｜"  # noqa: RUF001
DEEPSEEK = f"<{BAR}tool▁calls▁begin{BAR}><{BAR}tool▁call▁begin{BAR}>function<{BAR}tool▁sep{BAR}>f\n"

# How each syntax opens a call of f, up to the value of its first argument or its arguments.
OPEN = {
    "hermes": '<tool_call>\n{"name": "f", "arguments": ',
    "llama3_json": '<|python_tag|>{"name": "f", "parameters": ',
    "pythonic": "<|python_start|>[f(o=",
    "mistral": "[TOOL_CALLS]f[ARGS]",
    "deepseek_v3": DEEPSEEK + "```json\n",
    "deepseek_v31": DEEPSEEK + "```json\n",
    "glm": "<tool_call>f\n<arg_key>o</arg_key>\n<arg_value>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
    "<|tool_call_argument_begin|>",
    "xml": "<tool_call>\n<function=f>\n<parameter=o>\n",
    "harmony": "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
}
TEXT_OPEN = {
    "glm": "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>",
    "xml": "<tool_call>\n<function=f>\n<parameter=s>\n",
    "pythonic": '<|python_start|>[f(s="',
}
CLOSING = {"glm": "</arg_value", "xml": "\n</parameter", "pythonic": "\\\\"}


def filled(start: str, unit: str, size: int) -> str:
    return (start + unit * (size // len(unit) + 1))[:size]


def cases(name: str) -> Iterator[tuple[str, Callable[[int], str]]]:
    """The hostile outputs of a syntax, as functions of their size."""
    opening, marker = OPEN[name], tool_syntaxes()[name].specials[0]
    yield "open string", lambda size: filled(opening + '{"a": "', "text \\n", size)
    yield "flat array", lambda size: filled(opening + '{"a": [', "1, ", size)
    yield "deep then text", lambda size: filled(opening + "[" * 300, "[", size)
    yield "up and down", lambda size: filled(opening + "[", "[" * 200 + "]" * 200 + ", ", size)
    yield "marker begun", lambda size: filled("", marker[:-1], size)
    yield "marker's first", lambda size: filled("", marker[0], size)
    yield "openings", lambda size: filled("", marker, size)
    yield "calls begun", lambda size: filled("", opening, size)
    yield "names that are none", lambda size: filled("", opening.replace("f", "zz"), size)
    yield "blanks", lambda size: filled(opening, " \n", size)
    yield "line ends", lambda size: filled("x", "\n", size)
    if name in TEXT_OPEN:
        yield "open text", lambda size: filled(TEXT_OPEN[name], "text ", size)
        yield "closing begun", lambda size: filled(TEXT_OPEN[name], CLOSING[name], size)


def parser_of(name: str) -> OutputParser:
    return compose(reasoning_syntaxes()["think"], tool_syntaxes()[name], FUNCTIONS, open=False)


def seconds(parser: OutputParser, pieces: Sequence[str]) -> float:
    begun = time.process_time()  # others may use the machine too
    for piece in pieces:
        parser.feed(piece)
    parser.finish()
    return time.process_time() - begun


def cut(text: str, step: int) -> list[str]:
    return [text[at : at + step] for at in range(0, len(text), step)]


def measured(name: str, make: Callable[[int], str], step: int) -> tuple[float, float]:
    """Seconds at half the size and at the whole, the better of two runs each."""
    half, whole = (
        min(seconds(parser_of(name), cut(make(size), min(step, size))) for _ in range(2))
        for size in (SIZE // 2, SIZE)
    )
    return half, whole


def hostile(names: Sequence[str]) -> float:
    """Prints every case; the worst ratio."""
    worst = 0.0
    for name in names:
        for case, make in cases(name):
            for pieces, step in (("letters", 1), ("whole", SIZE)):
                half, whole = measured(name, make, step)
                worst = max(worst, whole / half)
                mark = "" if whole / half <= GOAL else "  over the goal"
                line = f"{name:12s} {case:20s} {pieces:8s} {half:8.3f} {whole:8.3f}"
                print(f"{line} {whole / half:5.2f}{mark}", flush=True)
    return worst


def measure() -> dict[str, float]:
    """Microseconds per token of plain text."""
    tokens = ["The", " quick", " brown", " fox", ",", " over", " 3", " lazy", " dogs", "."] * 20_000
    figures = {}
    for name in ("none", *OPEN):
        best = min(
            seconds(
                compose(None, None, (), open=False) if name == "none" else parser_of(name), tokens
            )
            for _ in range(3)
        )
        figures[f"parser_us_per_token_{name}"] = best / len(tokens) * 1e6
    return figures


def main() -> None:
    for name, value in measure().items():
        print(f"{name:40s} {value:9.3f}")
    print(f"\n{'syntax':12s} {'case':20s} {'pieces':8s} {'0.5 MiB':>8s} {'1 MiB':>8s} ratio")
    worst = hostile(sys.argv[1:] or tuple(OPEN))
    print(f"worst ratio {worst:.2f}, goal {GOAL}")


if __name__ == "__main__":
    main()
