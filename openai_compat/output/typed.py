"""JSON values from texts that carry no types of their own: the parameter's schema says what it is.

A text becomes the JSON it spells where the schema allows that type, else a string.
"""

import json

from openai_compat.output.json_scan import SPACE, JsonScanner

TEXT_ONLY = frozenset({"string"})
_TEXT_OR_NULL = frozenset({"string", "null"})
_FIRST = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}
# Models trained on Python write its words.
_WORDS = {"True": ("true", "boolean"), "False": ("false", "boolean"), "None": ("null", "null")}


def is_text(allowed: frozenset[str]) -> bool:
    """Whether a text can be read without regard to JSON: it is a string, or perhaps null."""
    return allowed <= _TEXT_OR_NULL


def quoted(text: str) -> str:
    """A text as JSON string."""
    return json.dumps(text, ensure_ascii=False)


def escaped(text: str) -> str:
    """A piece of the inside of a JSON string."""
    return quoted(text)[1:-1]


def json_of(text: str, allowed: frozenset[str]) -> str:
    """The JSON text of a value that a model wrote as plain text."""
    bare = text.strip(SPACE)
    if _is_json(bare) and not _kinds_of_text(bare).isdisjoint(allowed):
        return bare
    if "string" not in allowed and bare in _WORDS:
        word, kind = _WORDS[bare]
        if kind in allowed:
            return word
    return quoted(text)


def _is_json(text: str) -> bool:
    scanner = JsonScanner()
    end = scanner.scan(text, 0)
    return end == len(text) and scanner.finish()


def _kinds_of_text(text: str) -> frozenset[str]:
    """The types of a JSON text, told without reading it all."""
    named = _FIRST.get(text[0])
    if named is not None:
        return frozenset({named})
    if not set(".eE").isdisjoint(text) and not float(text).is_integer():
        return frozenset({"number"})
    return frozenset({"number", "integer"})
