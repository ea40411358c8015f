"""Random JSON schemas over the features llguidance takes, from a seed: for tests of whole answers.

Every schema can be met in few characters: strings, arrays and numbers are bounded, so that a model
that knows nothing of the matter still ends.
"""

import random
from typing import Any

Schema = dict[str, Any]

_WORDS = ("name", "age", "city", "tags", "kind", "id", "ok", "note", "é", "a b", 'q"', "x-1")
_PATTERNS = ("^[a-c]{1,4}$", "^\\d{2}-\\d{2}$", "^(yes|no)$", "[xyz]", "^[A-Z][a-z]{0,3}$")
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email", "hostname", "duration")
_VALUES = (0, 1, -7, 2.5, True, False, None, "", "red", "☂", [1, 2], {"k": "v"})


class SchemaMaker:
    """Schemas of bounded depth; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._defs: Schema = {}

    def schema(self) -> Schema:
        """One whole schema, with its definitions."""
        self._defs = {}
        made = self._any(3)
        return {**made, "$defs": self._defs} if self._defs else made

    def object_schema(self) -> Schema:
        """One whole schema of an object, as tools and structured answers have."""
        self._defs = {}
        made = self._object(3)
        return {**made, "$defs": self._defs} if self._defs else made

    def _any(self, depth: int) -> Schema:
        scalars = [
            self._string, self._number, self._enum, self._const, self._bare, self._formatted,
        ]  # fmt: skip
        nested = [self._object, self._object, self._array, self._tuple, self._union, self._ref]
        pick = self._random.choice(scalars + (nested * 2 if depth else []))
        return pick(depth)

    def _string(self, _depth: int) -> Schema:
        least = self._random.randint(0, 4)
        if self._random.random() < 0.5:
            return {"type": "string", "pattern": self._random.choice(_PATTERNS), "maxLength": 12}
        return {"type": "string", "minLength": least, "maxLength": least + 8}

    def _formatted(self, _depth: int) -> Schema:
        return {"type": "string", "format": self._random.choice(_FORMATS), "maxLength": 40}

    def _number(self, _depth: int) -> Schema:
        kind = self._random.choice(["integer", "number"])
        low = self._random.randint(-500, 500)
        high = low + self._random.randint(1, 900)
        made: Schema = {"type": kind, "minimum": low, "maximum": high}
        if self._random.random() < 0.3:
            made = {"type": kind, "exclusiveMinimum": low - 1, "exclusiveMaximum": high + 1}
        if kind == "integer" and self._random.random() < 0.3:
            made["multipleOf"] = self._random.choice([1, 2, 5])
            made = {**made, "minimum": 0, "maximum": 900}
            made.pop("exclusiveMinimum", None)
            made.pop("exclusiveMaximum", None)
        return made

    def _enum(self, _depth: int) -> Schema:
        return {"enum": self._random.sample(_VALUES, self._random.randint(1, 4))}

    def _const(self, _depth: int) -> Schema:
        return {"const": self._random.choice(_VALUES)}

    def _bare(self, _depth: int) -> Schema:
        return {"type": self._random.choice(["boolean", "null", ["boolean", "null"]])}

    def _object(self, depth: int) -> Schema:
        names = self._random.sample(_WORDS, self._random.randint(0, 4))
        made: Schema = {
            "type": "object",
            "properties": {name: self._any(depth - 1) for name in names},
            "required": [name for name in names if self._random.random() < 0.7],
        }
        if self._random.random() < 0.85:
            return {**made, "additionalProperties": False}
        # llguidance counts properties only where all that are named are required.
        return {
            **made, "required": names, "additionalProperties": self._any(0),
            "maxProperties": len(names) + 1,
        }  # fmt: skip

    def _array(self, depth: int) -> Schema:
        least = self._random.randint(0, 2)
        most = least + self._random.randint(0, 3)
        return {
            "type": "array", "items": self._any(depth - 1), "minItems": least, "maxItems": most,
        }  # fmt: skip

    def _tuple(self, depth: int) -> Schema:
        parts = [self._any(depth - 1) for _ in range(self._random.randint(1, 3))]
        return {
            "type": "array", "prefixItems": parts, "items": False, "minItems": len(parts),
        }  # fmt: skip

    def _union(self, depth: int) -> Schema:
        return {"anyOf": [self._any(depth - 1) for _ in range(self._random.randint(1, 3))]}

    def _ref(self, depth: int) -> Schema:
        name = f"d{len(self._defs)}"
        self._defs[name] = {}  # taken, before what it holds takes the next
        self._defs[name] = self._any(depth - 1)
        return {"$ref": f"#/$defs/{name}"}


def random_schemas(count: int, *, seed: int = 0) -> list[Schema]:
    """So many schemas of any kind."""
    maker = SchemaMaker(seed)
    return [maker.schema() for _ in range(count)]


def random_object_schemas(count: int, *, seed: int = 0) -> list[Schema]:
    """So many schemas of objects."""
    maker = SchemaMaker(seed)
    return [maker.object_schema() for _ in range(count)]
