"""Random JSON schemas as clients write them, and the judge of what comes out.

Beside what `schemas.py` draws there are unions by a discriminator, intersections, maps by pattern,
recursion and open ends: everything that the dialect takes. Most strings and arrays are bounded, so
that answers end.
"""

import json
from decimal import Decimal

from jsonschema import Draft202012Validator

PATTERNS = ("^[a-z]{2,6}$", "^[A-Z][a-z]+( [A-Z][a-z]+)?$", "^#[0-9a-f]{6}$", "^a|b$", "[0-9]{2}")
FORMATS = ("date", "time", "date-time", "email", "ipv4", "ipv6", "uuid", "hostname", "duration")
NAMES = ("name", "age", "city", "tags", "size", "ok", "note", "né", "with space", 'q"uote', "x-1")
TEXTS = ("red", "green", "", "a b", 'say "hi"', "né 😀", "line\nend", "<tool_call>")


class Forms:
    """Draws schemas from a source of randomness."""

    def __init__(self, rng):
        self._rng = rng
        self._definitions = {}
        self._strict = False

    def draw(self, *, strict=False):
        """An object schema; with `strict`, as OpenAI's strict mode wants every object."""
        self._definitions = {}
        self._strict = strict
        schema = self._object(3)
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def _any(self, depth):
        simple = [self._string, self._number, self._integer, self._bare, self._enum]
        nested = [self._object, self._array, self._any_of, self._reference, self._types]
        if not self._strict:
            nested += [self._one_of, self._all_of, self._map]
        kinds = simple * 2 + (nested if depth > 0 else [])
        schema = self._rng.choice(kinds)(depth - 1)
        described = self._rng.random() < 0.2
        return {"description": "what it is", **schema} if described else schema

    def _string(self, _):
        rng, schema = self._rng, {"type": "string"}
        match rng.randrange(5):
            case 0:
                return {**schema, "pattern": rng.choice(PATTERNS), "maxLength": 12}
            case 1:
                return {**schema, "format": rng.choice(FORMATS)}
            case 2:
                return {**schema, "minLength": rng.randint(0, 4), "maxLength": rng.randint(4, 20)}
        return {**schema, "maxLength": rng.randint(0, 24)}

    def _integer(self, _):
        schema = self._within("integer", self._rng.randint(-1000, 1000), (50, 120, 500))
        if self._rng.random() < 0.3:
            schema["multipleOf"] = self._rng.choice((2, 5, 7))
        return schema

    def _number(self, _):
        schema = self._within("number", round(self._rng.uniform(-50, 50), 2), (1, 2.5, 100))
        if self._rng.random() < 0.2:
            schema["multipleOf"] = self._rng.choice((0.5, 0.25))
        return schema

    def _within(self, kind, low, widths):
        rng, schema = self._rng, {"type": kind}
        if rng.random() < 0.6:
            schema[rng.choice(("minimum", "exclusiveMinimum"))] = low
        if rng.random() < 0.6:
            schema[rng.choice(("maximum", "exclusiveMaximum"))] = low + rng.choice(widths)
        return schema

    def _bare(self, _):
        return {"type": self._rng.choice(("boolean", "null"))}

    def _enum(self, _):
        rng = self._rng
        values = [*rng.sample(TEXTS, 3), rng.randint(-9, 9), None, True, 2.5]
        if not self._strict:
            values += [{"a": [1, "x"]}, [1, 2]]
        match rng.randrange(3):
            case 0:
                return {"const": rng.choice(values)}
            case 1:
                return {"type": "string", "enum": rng.sample(TEXTS, rng.randint(1, 4))}
        return {"enum": rng.sample(values, rng.randint(1, 4))}

    def _types(self, _):
        kinds = self._rng.sample(("integer", "boolean", "null", "string"), 2)
        return {"type": kinds, **({"maxLength": 8} if "string" in kinds else {})}

    def _array(self, depth):
        rng, schema = self._rng, {"type": "array"}
        if rng.random() < 0.3:
            schema["prefixItems"] = [self._any(depth) for _ in range(rng.randint(1, 2))]
            if rng.random() < 0.5:
                return {**schema, "items": False}
        low = rng.randint(0, 2)
        most = low + rng.randint(0, 2)
        return {**schema, "items": self._any(depth), "minItems": low, "maxItems": most}

    def _object(self, depth):
        rng = self._rng
        names = rng.sample(NAMES, rng.randint(0 if depth < 3 else 1, 4))
        schema = {
            "type": "object",
            "properties": {name: self._any(depth - 1) for name in names},
            "required": names if self._strict else rng.sample(names, rng.randint(0, len(names))),
        }
        if self._strict or rng.random() < 0.7:
            return {**schema, "additionalProperties": False}
        if rng.random() < 0.3:
            schema["patternProperties"] = {"^k": self._any(0)}
        if rng.random() < 0.6:
            schema["additionalProperties"] = self._any(0)
        return schema

    def _map(self, _):
        rng, values = self._rng, self._any(0)
        schema = {"type": "object", "maxProperties": 2}
        if rng.random() < 0.5:
            keys = rng.choice(("^k[0-9]$", "^[a-c]+$"))
            schema |= {"patternProperties": {keys: values}, "additionalProperties": False}
        else:
            schema["additionalProperties"] = values
        return {**schema, "minProperties": 1} if rng.random() < 0.4 else schema

    def _any_of(self, depth):
        return {"anyOf": [self._any(depth) for _ in range(self._rng.randint(2, 3))]}

    def _one_of(self, depth):
        if self._rng.random() < 0.5:
            options = (self._string, self._integer, self._bare, self._array)
            return {"oneOf": [kind(depth) for kind in self._rng.sample(options, 2)]}
        tagged = [
            self._defined(_closed({"kind": {"const": kind}, "value": self._any(depth - 1)}))
            for kind in self._rng.sample(("cat", "dog", "cow"), 2)
        ]
        return {"oneOf": tagged, "discriminator": {"propertyName": "kind"}}

    def _all_of(self, depth):
        parts = [
            {"type": "object", "properties": {name: self._any(depth - 1)}, "required": [name]}
            for name in self._rng.sample(NAMES, 2)
        ]
        return {"allOf": parts, "maxProperties": 3}

    def _reference(self, depth):
        if self._rng.random() < 0.7:
            return self._defined(self._any(depth - 1))
        reference = self._defined({})  # a list of itself, which may end at any place
        rest = {"anyOf": [{"type": "null"}, reference]}
        name = reference["$ref"].rpartition("/")[2]
        self._definitions[name] = _closed({"value": self._integer(0), "next": rest})
        return reference

    def _defined(self, schema):
        name = f"D{len(self._definitions)}"
        self._definitions[name] = schema
        return {"$ref": f"#/$defs/{name}"}


def _closed(properties):
    return {
        "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def problem(schema, text):
    """What is wrong with a text by a schema, in words; None where it is valid."""
    try:
        value = json.loads(text)
    except ValueError:
        return "it is no JSON"
    checker = Draft202012Validator.FORMAT_CHECKER
    for error in Draft202012Validator(schema, format_checker=checker).iter_errors(value):
        # In decimals: 0.3 is a multiple of 0.1, whatever doubles say.
        if error.validator != "multipleOf" or _remainder(error):
            return f"{error.validator}: {error.message[:100]}"
    return None


def _remainder(error):
    return Decimal(repr(error.instance)) % Decimal(repr(error.validator_value))
