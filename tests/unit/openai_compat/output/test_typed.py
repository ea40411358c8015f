"""Values of texts without types, by the schema of the parameter."""

import pytest

from openai_compat.output import typed
from openai_compat.output.schema_types import ALL, SchemaTypes

RECURSIVE = {
    "$defs": {
        "A": {"anyOf": [{"$ref": "#/$defs/B"}] * 9 + [{"type": "string"}]},
        "B": {"oneOf": [{"$ref": "#/$defs/A"}] * 9 + [{"type": "null"}]},
    },
    "properties": {"a": {"$ref": "#/$defs/A"}},
}


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": "number"}, {"number", "integer"}),
        ({"type": ["integer", "null"]}, {"integer", "null"}),
        ({"enum": ["a", 1, None]}, {"string", "number", "integer", "null"}),
        ({"const": 1.5}, {"number"}),
        ({"anyOf": [{"type": "string"}, {"type": "array"}]}, {"string", "array"}),
        ({"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}, {"string"}),
        ({"$ref": "#/$defs/N"}, {"integer"}),
        ({"$ref": "#/$defs/a%20b"}, {"string"}),
        ({"$ref": "#/$defs/none"}, ALL),
        ({"$ref": "other.json"}, ALL),
        ({}, ALL),
        (True, ALL),
    ],
)
def test_a_schema_allows_types(schema, types):
    """Types are read through unions, references and listed values; no word means all types."""
    root = {
        "$defs": {"N": {"type": "integer"}, "a b": {"type": "string"}},
        "properties": {"a": schema},
    }
    assert SchemaTypes(root).of_property("a") == types


def test_references_in_a_circle_come_to_an_end():
    """A schema that refers to itself many times over is read once."""
    assert {"string", "null"} <= SchemaTypes(RECURSIVE).of_property("a")


@pytest.mark.parametrize(
    ("text", "types", "found"),
    [
        ("12", {"integer"}, "12"),
        (" 12\n", {"integer"}, "12"),
        ("12", {"string"}, '"12"'),
        ("12", {"string", "integer"}, "12"),
        ("12.5", {"string", "integer"}, '"12.5"'),
        ("12.0", {"integer"}, "12.0"),
        ("1e999", {"integer"}, '"1e999"'),
        ("True", {"boolean"}, "true"),
        ("None", {"null", "integer"}, "null"),
        ("True", {"boolean", "string"}, '"True"'),
        ("null", {"null", "string"}, "null"),
        ("NaN", {"number"}, '"NaN"'),
        ('{"a": [1]}', {"object"}, '{"a": [1]}'),
        ('{"a": [1]', {"object"}, '"{\\"a\\": [1]"'),
        ("[" * 300 + "]" * 300, {"array", "string"}, '"' + "[" * 300 + "]" * 300 + '"'),
        ("", {"string", "null"}, '""'),
        (" a\n", {"string", "null"}, '" a\\n"'),
    ],
)
def test_a_text_is_json_of_an_allowed_type_or_a_string(text, types, found):
    """A text is the JSON it spells if the schema allows that type, else the text itself."""
    assert typed.json_of(text, frozenset(types)) == found
