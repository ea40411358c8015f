"""JSON values from texts that carry no types of their own: the parameter's schema says what it is.

A text becomes the JSON it spells where the schema allows that type, else a string.
"""

import json
from collections.abc import Mapping
from typing import Any

from openai_compat.output.json_scan import SPACE, JsonScanner

ALL = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
TEXT_ONLY = frozenset({"string"})
_TEXT_OR_NULL = frozenset({"string", "null"})
_MAX_REFERENCES = 16
_FIRST = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}
# Models trained on Python write its words.
_WORDS = {"True": ("true", "boolean"), "False": ("false", "boolean"), "None": ("null", "null")}


def kinds(schema: object, root: Mapping[str, object], depth: int = 0) -> frozenset[str]:
    """The JSON types a schema allows, as far as it says; all of them where it does not."""
    if not isinstance(schema, Mapping) or depth > _MAX_REFERENCES:
        return ALL
    allowed = ALL
    named = schema.get("type")
    if isinstance(named, str):
        allowed &= _with_integers({named})
    elif isinstance(named, list):
        allowed &= _with_integers({each for each in named if isinstance(each, str)})
    if isinstance(schema.get("enum"), list):
        allowed &= frozenset().union(*(kinds_of(value) for value in schema["enum"]))
    if "const" in schema:
        allowed &= kinds_of(schema["const"])
    for keyword in ("anyOf", "oneOf"):
        branches = schema.get(keyword)
        if isinstance(branches, list) and branches:
            allowed &= frozenset().union(*(kinds(each, root, depth + 1) for each in branches))
    for part in schema["allOf"] if isinstance(schema.get("allOf"), list) else ():
        allowed &= kinds(part, root, depth + 1)
    if isinstance(schema.get("$ref"), str):
        allowed &= kinds(resolved(schema["$ref"], root), root, depth + 1)
    return allowed


def resolved(reference: str, root: Mapping[str, object]) -> object:
    """What a reference within the same schema points to; None if nothing."""
    if not reference.startswith("#"):
        return None
    place: object = root
    for step in reference[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, Mapping) or key not in place:
            return None
        place = place[key]
    return place


def kinds_of(value: Any) -> frozenset[str]:
    """The JSON types of a value; a whole number is both."""
    if value is None:
        return frozenset({"null"})
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if isinstance(value, int | float):
        whole = isinstance(value, int) or value.is_integer()
        return frozenset({"number", "integer"} if whole else {"number"})
    if isinstance(value, str):
        return frozenset({"string"})
    return frozenset({"array" if isinstance(value, list) else "object"})


def property_kinds(parameters: Mapping[str, object], name: str) -> frozenset[str]:
    """The types a parameter may have."""
    properties = parameters.get("properties")
    schema = properties.get(name) if isinstance(properties, Mapping) else None
    return kinds(schema, parameters)


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


def _with_integers(named: set[str]) -> frozenset[str]:
    return frozenset(named | {"integer"} if "number" in named else named)


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
