"""Which JSON types a schema allows, as far as it says."""

from collections.abc import Mapping
from typing import Any, TypeGuard
from urllib.parse import unquote

ALL = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_MAX_NESTING = 64


class SchemaTypes:
    """The types of the parts of one schema. Remembers what it found: references may be many."""

    __slots__ = ("_properties", "_references", "root")

    def __init__(self, root: Mapping[str, object]) -> None:
        self.root = root
        self._properties: dict[str, frozenset[str]] = {}
        self._references: dict[str, frozenset[str]] = {}

    def of_property(self, name: str) -> frozenset[str]:
        """Of a property of the root; all types where it has none of that name."""
        properties = self.root.get("properties")
        if not isinstance(properties, Mapping) or name not in properties:
            return ALL
        if name not in self._properties:
            self._properties[name] = self.of(properties[name])
        return self._properties[name]

    def of(self, schema: object, depth: int = 0) -> frozenset[str]:
        """Of a part of the schema; all types where it says nothing."""
        if not isinstance(schema, Mapping) or depth > _MAX_NESTING:
            return ALL
        allowed = _named(schema.get("type"))
        if isinstance(schema.get("enum"), list):
            allowed &= frozenset().union(*(kinds_of(value) for value in schema["enum"]))
        if "const" in schema:
            allowed &= kinds_of(schema["const"])
        for keyword in ("anyOf", "oneOf"):
            branches = schema.get(keyword)
            if isinstance(branches, list) and branches:
                allowed &= frozenset().union(*(self.of(each, depth + 1) for each in branches))
        for part in schema["allOf"] if isinstance(schema.get("allOf"), list) else ():
            allowed &= self.of(part, depth + 1)
        if isinstance(schema.get("$ref"), str):
            allowed &= self._referred(schema["$ref"], depth + 1)
        return allowed

    def _referred(self, reference: str, depth: int) -> frozenset[str]:
        if reference not in self._references:
            self._references[reference] = ALL  # of itself it says nothing
            self._references[reference] = self.of(self.resolved(reference), depth)
        return self._references[reference]

    def resolved(self, reference: str) -> object:
        """What a reference within the schema points to; None if nothing."""
        if not reference.startswith("#"):
            return None
        place: object = self.root
        for step in unquote(reference[1:]).split("/")[1:]:
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


def _named(named: object) -> frozenset[str]:
    names = {named} if isinstance(named, str) else set(named) if _texts(named) else ALL
    return frozenset(names | {"integer"} if "number" in names else names)


def _texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
