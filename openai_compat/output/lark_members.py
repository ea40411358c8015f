"""Rules for arguments that are written one by one, from the properties of a function's schema.

Properties come in the schema's order: the required ones always, the others perhaps, and no further
ones. Where the schema names none, any members may come.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from openai_compat.output import lark, typed
from openai_compat.output.schema_types import SchemaTypes
from openai_compat.output.syntax import Function, NotExpressible

# Keywords about the object as a whole that a list of members cannot keep.
_WHOLE = (
    *("$ref", "allOf", "anyOf", "oneOf", "not", "if", "dependentRequired", "dependentSchemas"),
    *("dependencies", "minProperties", "maxProperties", "patternProperties", "propertyNames"),
)
# Keywords that say nothing about which texts are valid; `format` is one, as JSON Schema has it.
_SAYS_NOTHING = frozenset(
    {"type", "title", "description", "default", "examples", "deprecated", "format", "$comment"}
)
_LENGTHS = frozenset({"minLength", "maxLength"})
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Member(NamedTuple):
    """A property, its schema, and whether it must come."""

    name: str
    schema: object
    required: bool


@dataclass(frozen=True, slots=True)
class Tags:
    """How a syntax writes one member: head, value, end, and what follows it."""

    head: Callable[[str], str]
    any_key: str
    closing: str
    """The text that no value may contain."""
    end: str
    after: str
    special: bool
    """Whether the closing text is a special token: text cannot hold it, but can spell it."""


def members(syntax: str, function: Function) -> list[Member] | None:
    """The properties of a function; None where it names none."""
    parameters = function.parameters
    for keyword in _WHOLE:
        if keyword in parameters:
            raise NotExpressible(syntax, function.name, keyword)
    properties = parameters.get("properties")
    if not isinstance(properties, Mapping):
        return None
    listed = parameters.get("required")
    required = (
        [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    )
    found = [Member(name, schema, name in required) for name, schema in properties.items()]
    found += [Member(name, {}, required=True) for name in required if name not in properties]
    for member in found:
        if member.schema is False and member.required:
            raise NotExpressible(syntax, function.name, "required")
    return [member for member in found if member.schema is not False]


def tagged(syntax: str, function: Function, rule: str, tags: Tags) -> tuple[str, list[str]]:
    """An expression for all members between tags, and the rules it needs."""
    found = members(syntax, function)
    if found is None:
        one = lark.joined(tags.head(tags.any_key), lark.json_value({}), tags.end, tags.after)
        return f"{rule}_any*", [f"{rule}_any: {one}"]
    parts, rules = [], []
    for at, member in enumerate(found):
        if re.search(r"[<>\n]|^\s|\s$|^$", member.name):
            raise NotExpressible(syntax, function.name, "properties")
        text = _Text(syntax, function, tags)
        value, more = text.value(member.schema, f"{rule}_{at}")
        body = lark.joined(tags.head(lark.quoted(member.name)), value, tags.after)
        rules += [f"{rule}_{at}: {body}", *more]
        parts.append(f"{rule}_{at}" + ("" if member.required else "?"))
    return lark.joined(*parts), rules


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


class _Text:
    """Values as plain text, of one function."""

    def __init__(self, syntax: str, function: Function, tags: Tags) -> None:
        self._syntax = syntax
        self._function = function
        self._root = function.parameters
        self._types = SchemaTypes(function.parameters)
        self._tags = tags

    def value(self, schema: object, rule: str) -> tuple[str, list[str]]:
        """An expression for the value with its end, and the rules it needs."""
        allowed = self._types.of(schema)
        schema = self._plain(schema)
        if "enum" in schema or "const" in schema:
            values = _list(schema.get("enum", [schema.get("const")]))
            if not values:
                self._refuse("enum")
            texts = [lark.quoted(self._spelled(value, allowed)) for value in values]
            return lark.joined("(" + " | ".join(texts) + ")", self._tags.end), []
        if not typed.is_text(allowed):
            return lark.joined(lark.json_value(within(schema, self._root)), self._tags.end), []
        return self._free(self._lengths(schema, allowed), rule.upper() + "_TEXT")

    def _free(self, lengths: str, terminal: str) -> tuple[str, list[str]]:
        closing = re.escape(self._tags.closing).replace("/", "\\/")
        text = f"(/(?s:.{lengths})/ & ~/(?s:.*){closing}(?s:.*)/)"
        if self._tags.special:
            return lark.joined(terminal, self._tags.end), [f"{terminal}: {text}"]
        return terminal, [f"{terminal}: " + lark.joined(text, self._tags.end)]

    def _spelled(self, value: object, allowed: frozenset[str]) -> str:
        """A text that is read back as this value."""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        read = text if allowed == typed.TEXT_ONLY else json.loads(typed.json_of(text, allowed))
        if read != value:
            text = json.dumps(value, ensure_ascii=False)
        if self._tags.closing in text:
            self._refuse("enum")
        return text

    def _plain(self, schema: object) -> Mapping[str, object]:
        """The schema, or what it refers to if it does nothing else."""
        for _ in range(16):
            if not isinstance(schema, Mapping):
                return {}
            if "$ref" not in schema or set(schema) - _SAYS_NOTHING - {"$ref"}:
                return schema
            schema = self._types.resolved(str(schema["$ref"]))
        return {}

    def _lengths(self, schema: Mapping[str, object], allowed: frozenset[str]) -> str:
        """How many characters, as a regular expression counts them."""
        for branch in _list(schema.get("anyOf")) + _list(schema.get("oneOf")):
            if set(self._plain(branch)) - _SAYS_NOTHING:
                self._refuse("anyOf")
        counted = _LENGTHS if allowed == typed.TEXT_ONLY else frozenset()
        for keyword in set(schema) - _SAYS_NOTHING - counted - {"anyOf", "oneOf"}:
            self._refuse(keyword)
        if _LENGTHS.isdisjoint(schema):
            return "*"
        least, most = (schema.get(keyword) for keyword in ("minLength", "maxLength"))
        if not all(bound is None or isinstance(bound, int) for bound in (least, most)):
            self._refuse("minLength" if "minLength" in schema else "maxLength")
        return f"{{{least or 0},{'' if most is None else most}}}"

    def _refuse(self, keyword: str) -> None:
        raise NotExpressible(self._syntax, self._function.name, keyword)


def within(schema: Mapping[str, object], root: Mapping[str, object]) -> dict[str, object]:
    """A part of a schema with the definitions it may refer to."""
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return {**definitions, **schema}


def keywords(syntax: str, function: Function, rule: str) -> tuple[str, list[str]]:
    """Python keyword arguments: an expression, perhaps empty, and the rules it needs."""
    found = members(syntax, function)
    if found is None:
        one = lark.joined("/[A-Za-z_][A-Za-z0-9_]{0,63}/", '"="', lark.json_value({}))
        rules = [f'{rule}_all: {rule}_any (", " {rule}_any)*', f"{rule}_any: {one}"]
        return f"{rule}_all?", rules
    rules = []
    for at, member in enumerate(found):
        if not _IDENTIFIER.fullmatch(member.name):
            raise NotExpressible(syntax, function.name, "properties")
        head = lark.quoted(f"{member.name}=")
        value = python_value(member.schema, function.parameters)
        rules.append(f"{rule}_{at}: " + lark.joined(head, value))
    # Which comma comes is known from the left only: `first` has none before it yet.
    last = len(found)
    rules += [f'{rule}_first_{last}: ""', f'{rule}_next_{last}: ""']
    for at, member in enumerate(found):
        first = f"{rule}_{at} {rule}_next_{at + 1}"
        after = f'", " {first}'
        if not member.required:
            first += f" | {rule}_first_{at + 1}"
            after += f" | {rule}_next_{at + 1}"
        rules += [f"{rule}_first_{at}: {first}", f"{rule}_next_{at}: {after}"]
    return f"{rule}_first_0", rules


def python_value(schema: object, root: Mapping[str, object]) -> str:
    """A value in Python's words where it is a word, else as JSON."""
    allowed = SchemaTypes(root).of(schema)
    plain = isinstance(schema, Mapping) and not set(schema) - _SAYS_NOTHING
    if allowed == frozenset({"boolean"}) and plain:
        return '("True" | "False")'
    if allowed == frozenset({"null"}):
        return '"None"'
    return lark.json_value(within(schema, root) if isinstance(schema, Mapping) else {})
