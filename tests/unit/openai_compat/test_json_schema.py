"""JSON schemas of clients: what holds is taken, what would not is refused by keyword and place."""

import json
import time

import pytest

from openai_compat.conversation.json_schema import check_schema, for_grammar
from openai_compat.errors import RequestRejected
from tests.support.answers import takes

OBJECT = {"type": "object"}


def refused(schema, **options):
    """The refusal's param and message."""
    with pytest.raises(RequestRejected) as caught:
        check_schema(schema, "s", **options)
    assert caught.value.reply.code == "invalid_json_schema"
    return caught.value.reply.param, caught.value.reply.message


UNENFORCED = [
    ("not", {}),
    ("if", {}),
    ("then", {}),
    ("else", {}),
    ("contains", {}),
    ("minContains", 1),
    ("maxContains", 1),
    ("uniqueItems", True),
    ("propertyNames", {}),
    ("dependentRequired", {}),
    ("dependentSchemas", {}),
    ("dependencies", {}),
    ("unevaluatedItems", False),
    ("unevaluatedProperties", False),
    ("$dynamicRef", "#x"),
    ("$recursiveRef", "#"),
    ("x-guidance", {"lenient": True}),
]


@pytest.mark.parametrize(("keyword", "value"), UNENFORCED)
def test_keywords_that_cannot_hold_are_named_with_their_place(keyword, value):
    """Also deep inside, under any keyword that holds schemas."""
    assert refused({keyword: value})[0] == f"s.{keyword}"
    inner = {keyword: value}
    for path, schema in (
        ("s.properties.a", {"properties": {"a": inner}}),
        ("s.items.anyOf[1]", {"items": {"anyOf": [True, inner]}}),
        ("s.$defs.d.prefixItems[0]", {"$defs": {"d": {"prefixItems": [inner]}}}),
        ("s.additionalProperties.allOf[0]", {"additionalProperties": {"allOf": [inner]}}),
        ("s.patternProperties.*", {"patternProperties": {"^a": inner}}),
    ):
        param, message = refused({**OBJECT, **schema})
        assert param == f"{path}.{keyword}"
        assert f"'{keyword}'" in message


REFUSED = [
    ({"$ref": "http://example.com/a"}, "s.$ref"),
    ({"$ref": "other.json#/a"}, "s.$ref"),
    ({"$ref": "#/$defs/no", "$defs": {"a": {}}}, "s.$ref"),
    ({"$ref": "#/title", "title": "x"}, "s.$ref"),
    ({"$ref": 5}, "s.$ref"),
    ({"properties": {"a": {"$id": "x"}}}, "s.properties.a.$id"),
    ({"type": "text"}, "s.type"),
    ({"type": ["string", 1]}, "s.type"),
    ({"format": "iri"}, "s.format"),
    ({"pattern": "^(?!a)"}, "s.pattern"),
    ({"pattern": "a(?<=b)[(?=]"}, "s.pattern"),
    ({"pattern": "(a)\\1"}, "s.pattern"),
    ({"type": "string", "format": "password"}, "s.format"),
    ({"properties": []}, "s.properties"),
    ({"anyOf": {}}, "s.anyOf"),
    ({"items": 5}, "s.items"),
    ({"items": [5]}, "s.items[0]"),
    ({"const": 2**53 + 1}, "s.const"),
    ({"enum": [1, {"a": [-(2**60)]}]}, "s.enum"),
    ({"maximum": 1e300}, "s.maximum"),
    ({"const": "a\x01"}, "s.const"),
    ({"const": "\x7f"}, "s.const"),
    ({"enum": ["b", {"\x02": 1}]}, "s.enum"),
    ({"properties": {"\x1f": {}}}, "s.properties"),
    ({"required": ["\x00"]}, "s.required"),
    ({"minProperties": 2}, "s.minProperties"),
    ({"required": ["a"], "minProperties": 3}, "s.minProperties"),
    ([], "s"),
    ("object", "s"),
]


@pytest.mark.parametrize(("schema", "param"), REFUSED)
def test_what_would_not_hold_is_refused(schema, param):
    """Each names its place."""
    assert refused(schema)[0] == param


def test_names_of_properties_are_repeated_only_where_harmless():
    """A path may go into logs and terminals."""
    param, message = refused({"properties": {"secret\nname": {"not": {}}}})
    assert param == "s.properties.*.not"
    assert "secret" not in message


TAKEN = [
    {},
    {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "http://x/y", **OBJECT},
    {**OBJECT, "title": "t", "description": "d", "default": {}, "examples": [1], "made-up": 1},
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}},
    {"$ref": "#/$defs/a%20b", "$defs": {"a b": {"type": "string"}}},
    {"properties": {"next": {"$ref": "#"}}, **OBJECT},
    {"type": ["string", "null"], "format": "date"},
    {"type": "integer", "format": "int32"},
    {"properties": {"not": {"type": "string"}, "if": True}},
    {"required": ["a"], "minProperties": 2},
    {"pattern": "[(?=]\\(?!?\\\\[]1-3]"},
    {"enum": [1, "a\n\t", None, {"b": [2.5]}]},
]


@pytest.mark.parametrize("schema", TAKEN)
def test_the_rest_is_taken_and_compiles(schema):
    """Names of properties are no keywords; annotations say nothing about the answer."""
    assert check_schema(schema, "s") is schema
    compiled(schema)


def compiled(schema):
    """Compile the schema as grammars get it; raises where it does not."""
    source = json.dumps({"grammars": [{"json_schema": for_grammar(schema)}]})
    takes(source, "")
    return source


LIMITS = [
    ({"properties": {f"p{i}": {} for i in range(5001)}}, "5001 properties"),
    ({"enum": list(range(1001))}, "1001 enum values"),
    ({"properties": {"x" * 120_001: {}}}, "120001 characters"),
    ({"description": "x" * 131_072}, "131072"),
]


@pytest.mark.parametrize(("schema", "words"), LIMITS)
def test_limits_are_told_with_their_figures(schema, words):
    """Number and limit."""
    assert words in refused(schema)[1]


def nested(levels):
    """Objects in objects."""
    schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_strict_schemas_are_as_deep_as_openais():
    """Ten levels; others go deeper."""
    check_schema(nested(10), "s", strict=True)
    check_schema(nested(11), "s")
    assert "11 levels" in refused(nested(11), strict=True)[1]


CAT = {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"enum": ["dog"]}}, "required": ["kind"]}


def test_one_of_is_taken_where_a_property_tells_the_options_apart():
    """As pydantic writes unions with a discriminator, behind references."""
    schema = {
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        "discriminator": {"propertyName": "kind"},
        "$defs": {"Cat": CAT, "Dog": DOG},
    }
    assert takes(compiled(schema), '{"kind":"dog"}')
    assert "oneOf" in for_grammar({"oneOf": [CAT, CAT]})
    assert "oneOf" in for_grammar({"oneOf": [CAT, {**DOG, "required": []}]})
    assert "oneOf" in for_grammar({"oneOf": [CAT, {**DOG, "required": [{}, ["kind"]]}]})


def test_options_are_told_apart_in_little_time():
    """However often one of them is referred to."""
    names = [f"p{number}" for number in range(800)]
    big = {
        "type": "object",
        "properties": {name: {"const": "x"} for name in names},
        "required": names,
    }
    options = [{"$ref": f"#/$defs/{name}"} for name in ("a", "b", "c") * 1000]
    start = time.process_time()
    rewritten = for_grammar({"oneOf": options, "$defs": dict.fromkeys("abc", big)})
    assert time.process_time() - start < 0.3  # 0.01 s on a quiet machine
    assert "oneOf" in rewritten


def test_values_are_not_rewritten():
    """What looks like a schema in a constant is data."""
    schema = {"const": {"oneOf": [CAT, DOG]}}
    assert for_grammar(schema) == schema
    named = {"properties": {"const": {"oneOf": [CAT, DOG]}}}
    assert for_grammar(named) == {"properties": {"const": {"anyOf": [CAT, DOG]}}}
