"""Writes the Lark that llguidance reads: literals, markers, the frame of a calls section."""

import json
from collections.abc import Callable, Mapping, Sequence

from openai_compat.output.syntax import Function, LarkFragment

# Write JSON as the models' templates do, and leave no room for endless blanks.
_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # Without \u: further keys are told from named ones by their spelling, which it would change.
    "json_allowed_escapes": 'nrbtf\\"',
}

# llguidance reads neither control characters nor JSON's way to escape them.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)} | {
    ord("\n"): "\\n",
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


def quoted(text: str) -> str:
    """A text as Lark literal."""
    return f'"{text.translate(_ESCAPES)}"'


def marker(text: str, special: Callable[[str], bool]) -> str:
    """A marker: by name if it is a special token, else spelled out."""
    if not special(text):
        return quoted(text)
    return text if text.startswith("<") and text.endswith(">") else f"<{text}>"


def json_value(schema: Mapping[str, object]) -> str:
    """A JSON value of this schema."""
    return "%json " + json.dumps({**schema, "x-guidance": _STYLE})


def json_object(function: Function) -> str:
    """The arguments of a function as a JSON object."""
    return json_value({"type": "object", **function.parameters})


def joined(*parts: str) -> str:
    """One after the other; empty parts are left out."""
    return " ".join(part for part in parts if part)


def section(
    trigger: str,
    rules: Sequence[str],
    functions: int,
    *,
    frame: tuple[str, str, str],
    parallel: bool,
) -> LarkFragment:
    """The rules `call_0`, `call_1`... as one section.

    The frame is what stands before the first call, between two, and after the last.
    """
    before, between, after = frame
    more = "(" + joined(between, "call_any") + ")*" if parallel else ""
    lines = [
        "call_section: " + joined(before, "call_any", more, after),
        "call_any: " + " | ".join(f"call_{at}" for at in range(functions)),
        *rules,
    ]
    return LarkFragment("call_section", "\n".join(lines) + "\n", trigger)


def json_calls(
    functions: Sequence[Function], before: Callable[[str], str], after: str
) -> list[str]:
    """Rules of calls that are a head with the function's name, a JSON object, and an end."""
    rules = []
    for at, function in enumerate(functions):
        rules.append(f"call_{at}: " + joined(before(function.name), f"call_{at}_json", after))
        rules.append(f"call_{at}_json: " + json_object(function))
    return rules
