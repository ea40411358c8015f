"""JSON schemas that clients send: taken where every keyword will hold, refused by name otherwise.

What is here is what llguidance would take without holding to it, or refuse without saying where.
The rest (a pattern with look-around, an intersection of two schemas that it cannot make) is found
when the grammar is compiled on trial.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn
from urllib.parse import unquote

import msgspec

from openai_compat.errors import RequestRejected
from openai_compat.fields import describe

Schema = Mapping[str, object]

MAX_SCHEMA_BYTES = 128 * 1024
# OpenAI's limits of strict schemas; the first three hold for every schema.
MAX_PROPERTIES = 5000
MAX_NAME_CHARS = 120_000  # of all property names, definition names, enum and const texts
MAX_ENUM_VALUES = 1000
MAX_STRICT_DEPTH = 10

CODE = "invalid_json_schema"
FORMATS = (
    *("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri"),
    *("uuid", "unknown"),
)  # as llguidance has them
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_UNENFORCED = frozenset(
    {
        "$dynamicAnchor",
        "$dynamicRef",
        "$recursiveAnchor",
        "$recursiveRef",
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "minContains",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
        "x-guidance",  # llguidance's own switches, which could turn checks off
    }
)
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_DEEPER = frozenset(
    {"properties", "patternProperties", "additionalProperties", "items", "prefixItems"}
)
_EXACT = 2**53  # the largest number up to which doubles hold every integer
_AROUND = ("(?=", "(?!", "(?<=", "(?<!")
_REFERENCES = tuple("123456789")
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")  # those that JSON has no letter for
_PLAIN = re.compile(r"[A-Za-z0-9_$-]{1,64}")
_MAX_PATH_CHARS = 300


def check_schema(value: object, param: str, *, strict: bool = False) -> Schema:
    """The schema as it came. Raises `RequestRejected` naming the keyword and its path."""
    if not isinstance(value, Mapping):
        _refuse(param, f"expected a JSON schema, an object; got {describe(value)}")
    size = len(msgspec.json.encode(value))
    if size > MAX_SCHEMA_BYTES:
        _refuse(param, f"the schema has {size} bytes; the limit is {MAX_SCHEMA_BYTES}")
    _Walk(param, strict=strict).run(value)
    return value


class _Place(NamedTuple):
    """One schema within the document."""

    value: object
    path: str  # as refusals name it
    pointer: str  # as `$ref` names it
    depth: int  # of arrays and objects


@dataclass(slots=True)
class _Walk:
    """One pass over a schema; counts what is limited as a whole."""

    param: str
    strict: bool
    pointers: set[str] = field(default_factory=set)
    refs: list[tuple[str, str]] = field(default_factory=list)
    properties: int = 0
    chars: int = 0
    enum_values: int = 0

    def run(self, schema: Schema) -> None:
        pending = [_Place(schema, self.param, "#", 0)]
        while pending:
            place = pending.pop()
            pending += self._visit(place)
        for target, path in self.refs:
            if target not in self.pointers:
                _refuse(path, "it must point to a schema of this document, as '#/$defs/name' does")

    def _visit(self, place: _Place) -> Iterator[_Place]:
        value, path = place.value, place.path
        self.pointers.add(place.pointer)
        if self.strict and place.depth > MAX_STRICT_DEPTH:
            _refuse(path, f"it is nested {place.depth} levels deep; the limit is"
                    f" {MAX_STRICT_DEPTH} where 'strict' is true")  # fmt: skip
        if isinstance(value, bool):
            return
        if not isinstance(value, Mapping):
            _refuse(path, f"expected a JSON schema, got {describe(value)}")
        for keyword in value:
            if keyword in _UNENFORCED:
                _refuse(f"{path}.{keyword}", f"the keyword '{keyword}' cannot be enforced")
        if place.pointer != "#" and "$id" in value:
            _refuse(f"{path}.$id", "'$id' is understood at the root of the schema only")
        self._check_values(value, path)
        self._count(value, path)
        yield from self._inner(place, value)

    def _check_values(self, value: Schema, path: str) -> None:
        reference = value.get("$ref")
        if reference is not None:
            if not isinstance(reference, str) or not reference.startswith("#"):
                _refuse(f"{path}.$ref", "only references within the document, '#...', are followed")
            self.refs.append((unquote(reference), f"{path}.$ref"))
        types = value.get("type", _TYPES)
        types = [types] if isinstance(types, str) else types
        if not isinstance(types, Sequence) or not all(each in _TYPES for each in types):
            _refuse(f"{path}.type", "expected one of " + ", ".join(_TYPES) + ", or a list of these")
        form = value.get("format")
        if form is not None and "string" in types and form not in FORMATS:
            _refuse(f"{path}.format", "this format cannot be enforced; these can: "
                    + ", ".join(FORMATS[:-1]))  # fmt: skip
        pattern = value.get("pattern")
        if isinstance(pattern, str) and (found := _beyond_linear(pattern)):
            _refuse(f"{path}.pattern", f"{found} cannot be enforced")
        for keyword in (*_NUMBERS, "const", "enum", "required"):
            if keyword in value and (found := _inexact(value[keyword])):
                _refuse(f"{path}.{keyword}", f"{found} cannot be held to exactly")
        properties = value.get("properties")
        if isinstance(properties, Mapping) and _inexact([*properties]):
            _refuse(f"{path}.properties", "control characters in a name cannot be held to")
        self._check_least(value, path)

    def _check_least(self, value: Schema, path: str) -> None:
        """`minProperties`: repeated keys would count once for the client, twice in a grammar."""
        least, required = value.get("minProperties"), value.get("required", ())
        if type(least) is int and isinstance(required, Sequence) and least > len(required) + 1:
            _refuse(f"{path}.minProperties",
                    "it can be enforced only up to one more than 'required' lists")  # fmt: skip

    def _count(self, value: Schema, path: str) -> None:
        names: list[object] = []
        for keyword in _MAPS:
            inner = value.get(keyword)
            if isinstance(inner, Mapping):
                names += inner
                self.properties += len(inner) if keyword == "properties" else 0
        enum = value.get("enum")
        if isinstance(enum, Sequence) and not isinstance(enum, str):
            self.enum_values += len(enum)
            names += enum
        names.append(value.get("const"))
        self.chars += sum(len(name) for name in names if isinstance(name, str))
        for count, limit, what in (
            (self.properties, MAX_PROPERTIES, "properties"),
            (self.enum_values, MAX_ENUM_VALUES, "enum values"),
            (self.chars, MAX_NAME_CHARS, "characters in names and values"),
        ):
            if count > limit:
                _refuse(path, f"the schema has {count} {what} up to here; the limit is {limit}")

    def _inner(self, place: _Place, value: Schema) -> Iterator[_Place]:
        for keyword in (*_MAPS, *_LISTS, "items", "additionalProperties", "additionalItems"):
            inner = value.get(keyword)
            if inner is None and keyword not in value:
                continue
            depth = place.depth + (keyword in _DEEPER)
            path, pointer = f"{place.path}.{keyword}", f"{place.pointer}/{keyword}"
            if keyword in _MAPS:
                if not isinstance(inner, Mapping):
                    _refuse(path, f"expected an object of schemas, got {describe(inner)}")
                for name, schema in inner.items():
                    yield _Place(
                        schema, f"{path}.{_shown(name)}", f"{pointer}/{_segment(name)}", depth
                    )
            elif keyword in _LISTS or (keyword == "items" and isinstance(inner, list)):
                if not isinstance(inner, list):
                    _refuse(path, f"expected an array of schemas, got {describe(inner)}")
                for at, schema in enumerate(inner):
                    yield _Place(schema, f"{path}[{at}]", f"{pointer}/{at}", depth)
            else:
                yield _Place(inner, path, pointer, depth)


def for_grammar(schema: Schema) -> dict[str, object]:
    """The schema as grammars take it: the same texts are valid.

    The dialect is not named (all that is enforced means the same in each), and `oneOf` of which at
    most one can hold is `anyOf`, which llguidance cannot see through references.
    """
    root = {name: value for name, value in schema.items() if name not in ("$schema", "$id")}
    rewritten = _Rewriting(root).of(root)
    return rewritten if isinstance(rewritten, dict) else root


Tags = Mapping[str, Sequence[str]]  # the texts that required properties may be, by their names


class _Rewriting:
    """One schema on its way to a grammar. What a reference leads to is read once."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._referred: dict[str, Tags] = {}

    def of(self, value: object) -> object:
        """A part of the schema, rewritten."""
        if isinstance(value, list):
            return [self.of(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        options = value.get("oneOf")
        told_apart = isinstance(options, list) and "anyOf" not in value and self._apart(options)
        return {
            ("anyOf" if told_apart and name == "oneOf" else name): self._inner(name, inner)
            for name, inner in value.items()
        }

    def _inner(self, keyword: str, inner: object) -> object:
        if keyword in _MAPS and isinstance(inner, Mapping):  # its names are no keywords
            return {name: self.of(schema) for name, schema in inner.items()}
        return inner if keyword in ("const", "enum", "default", "examples") else self.of(inner)

    def _apart(self, options: Sequence[object]) -> bool:
        """Whether some required property has different texts in each of these object schemas."""
        tags = [self._tags(option) for option in options]
        if len(set(map(id, tags))) < len(tags):
            return False  # one definition twice
        for name in set(tags[0]).intersection(*tags[1:]) if tags else ():
            texts = [text for tag in tags for text in tag[name]]
            if len(texts) == len(set(texts)):
                return True
        return False

    def _tags(self, option: object) -> Tags:
        """Those of an object schema, or of the one it refers to with nothing beside."""
        if not isinstance(option, Mapping):
            return {}
        reference = option.get("$ref")
        if not isinstance(reference, str):
            return _own_tags(option)
        if reference not in self._referred:
            found = _followed(reference, self._root)
            self._referred[reference] = {} if "$ref" in found else _own_tags(found)
        return self._referred[reference]


def _own_tags(schema: Schema) -> Tags:
    """The required properties that may only be certain texts."""
    properties, required = schema.get("properties"), schema.get("required")
    if schema.get("type") != "object" or not isinstance(properties, Mapping):
        return {}
    tags = {}
    for name in required if isinstance(required, list) else ():
        inner = properties.get(name) if isinstance(name, str) else None
        if isinstance(inner, Mapping):
            texts = inner["enum"] if isinstance(inner.get("enum"), list) else [inner.get("const")]
            if texts and all(isinstance(text, str) for text in texts):
                tags[name] = tuple(texts)
    return tags


def _followed(reference: str, root: Schema) -> Schema:
    """The schema that a reference points to; an empty one where there is none."""
    found: object = root
    for segment in unquote(reference).split("/")[1:]:
        name = segment.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _segment(name: str) -> str:
    """A name as pointers write it."""
    return name.replace("~", "~0").replace("/", "~1")


def _beyond_linear(pattern: str) -> str:
    """What of an expression needs more than one look at each character; empty if nothing does."""
    at, in_class = 0, False
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            if not in_class and pattern[at + 1 : at + 2] in _REFERENCES:
                return "a back-reference"
            at += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif pattern.startswith(_AROUND, at):
            return "look-around"
        at += 1
    return ""


def _inexact(value: object) -> str:
    """What in a value an answer could not repeat exactly; empty if nothing is."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, (int, float)) and abs(each) > _EXACT:
            return f"a number beyond {_EXACT}"
        if isinstance(each, str) and _CONTROL.search(each):
            return "a control character"
        if isinstance(each, Mapping):
            pending += [*each, *each.values()]
        elif isinstance(each, list):
            pending += each
    return ""


def _shown(name: str) -> str:
    """A property's name where it is harmless to repeat."""
    return name if _PLAIN.fullmatch(name) else "*"


def _refuse(path: str, reason: str) -> NoReturn:
    short = path if len(path) <= _MAX_PATH_CHARS else f"{path[:_MAX_PATH_CHARS]}..."
    raise RequestRejected(f"Invalid schema at '{short}': {reason}.", param=short, code=CODE)
