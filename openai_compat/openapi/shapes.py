"""The few JSON Schema shapes that the descriptions are written in."""

from collections.abc import Iterable, Mapping, Sequence

Schema = dict[str, object]


def text(doc: str = "", **limits: object) -> Schema:
    """A string."""
    return {"type": "string", **_told(doc), **limits}


def integer(low: int, high: int | None = None, doc: str = "", **more: object) -> Schema:
    """A whole number within bounds; without `high` the model's own limit holds."""
    top = {} if high is None else {"maximum": high}
    return {"type": "integer", "minimum": low, **top, **_told(doc), **more}


def number(low: float, high: float, doc: str, *, above_low: bool = False) -> Schema:
    """A number within bounds."""
    bottom = {"exclusiveMinimum": low} if above_low else {"minimum": low}
    return {"type": "number", **bottom, "maximum": high, "description": doc}


def flag(doc: str, *, default: bool = False) -> Schema:
    """True or false."""
    return {"type": "boolean", "default": default, "description": doc}


def choice(doc: str, *words: str) -> Schema:
    """One of a closed set of words."""
    return {"type": "string", "enum": list(words), **_told(doc)}


def words(*allowed: str) -> Schema:
    """One of a closed set of words that need no more of them."""
    return choice("", *allowed)


def items(item: Schema, doc: str = "", **limits: object) -> Schema:
    """An array."""
    return {"type": "array", "items": item, **_told(doc), **limits}


def record(
    properties: Mapping[str, Schema], doc: str = "", *, required: Sequence[str] = ()
) -> Schema:
    """An object; further fields may stand in it."""
    schema: Schema = {"type": "object", "properties": dict(properties), **_told(doc)}
    return {**schema, "required": list(required)} if required else schema


def answer(properties: Mapping[str, Schema], doc: str = "", *, maybe: Sequence[str] = ()) -> Schema:
    """An object that we send: every field but those in `maybe` is always there."""
    required = [name for name in properties if name not in maybe]
    return {**record(properties, doc, required=required), "additionalProperties": False}


def nullable(schema: Schema) -> Schema:
    """The same, or null, which every reader takes for a missing field."""
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    loose = {**schema, "type": [schema["type"], "null"]}
    words = schema.get("enum")
    return {**loose, "enum": [*words, None]} if isinstance(words, list) else loose


def ref(name: str) -> Schema:
    """A schema of the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def request(
    known: Iterable[str],
    unsupported: Mapping[str, tuple[object, ...]],
    described: Mapping[str, Schema],
    *,
    required: Sequence[str],
) -> Schema:
    """What is acted on as `described` (a test asks for all of it), the rest by its neutrals."""
    fields = {
        name: neutral(unsupported[name]) if name in unsupported else _optional(name, described)
        for name in sorted(known)
        if name not in required
    }
    return record({**{n: described[n] for n in required}, **fields}, required=required)


def _optional(name: str, described: Mapping[str, Schema]) -> Schema:
    return nullable(described[name]) if name in described else {}


def neutral(values: tuple[object, ...]) -> Schema:
    """A known field that asks for something not built: only what asks for nothing is taken."""
    return {
        "enum": [*values, None],
        "description": "Not supported yet: any other value is refused with"
        " `400 unsupported_parameter`, never ignored.",
    }


def _told(doc: str) -> Schema:
    return {"description": doc} if doc else {}
