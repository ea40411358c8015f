"""Structural tags: free text in which certain beginnings lead to JSON of a schema and an end."""

from collections.abc import Mapping
from dataclasses import dataclass

from openai_compat.conversation.json_schema import check_schema
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.unsupported import unsupported

MAX_TAGS = 128
MAX_TEXT_CHARS = 256


@dataclass(frozen=True, slots=True)
class Tag:
    """`begin`, JSON of the schema, `end`; `trigger` is what of `begin` obliges to the rest."""

    trigger: str
    begin: str
    schema: Mapping[str, object]
    end: str


def check_structural_tag(fields: Fields) -> tuple[Tag, ...]:
    """`{structures: [{begin, schema, end}], triggers: [...]}`. Raises `RequestRejected`."""
    if fields.raw("format") is not None:
        raise unsupported(fields.param("format"), " (only 'structures' and 'triggers' are)")
    triggers = _triggers(fields)
    given = fields.items("structures", MAX_TAGS)
    if not given:
        wanted = f"an array of 1 to {MAX_TAGS} structures"
        raise wrong(fields.param("structures"), wanted, given)
    return tuple(
        _read_tag(value, f"{fields.param('structures')}[{place}]", triggers)
        for place, value in enumerate(given)
    )


def _triggers(fields: Fields) -> list[str]:
    param = fields.param("triggers")
    given = fields.items("triggers", MAX_TAGS)
    if not given:
        raise wrong(param, f"an array of 1 to {MAX_TAGS} strings", given)
    triggers = []
    for place, trigger in enumerate(given):
        if not isinstance(trigger, str) or not 0 < len(trigger) <= MAX_TEXT_CHARS:
            wanted = f"a string of 1 to {MAX_TEXT_CHARS} characters"
            raise wrong(f"{param}[{place}]", wanted, trigger)
        triggers.append(trigger)
    for place, trigger in enumerate(triggers):
        if any(other != trigger and other in trigger for other in triggers):
            raise RequestRejected(
                f"'{param}[{place}]' holds another trigger, which would always come first.",
                param=f"{param}[{place}]",
            )
    return triggers


def _read_tag(value: object, param: str, triggers: list[str]) -> Tag:
    if not isinstance(value, dict):
        raise wrong(param, "an object", value)
    fields = Fields(value, param)
    begin = fields.text("begin", MAX_TEXT_CHARS)
    end = fields.text("end", MAX_TEXT_CHARS)
    if not begin or end is None:
        name = "end" if begin else "begin"
        raise wrong(fields.param(name), "a string", fields.raw(name))
    trigger = next((each for each in triggers if begin.startswith(each)), None)
    if trigger is None:
        raise RequestRejected(
            f"'{fields.param('begin')}' begins with none of the triggers.",
            param=fields.param("begin"),
        )
    return Tag(trigger, begin, check_schema(fields.raw("schema"), fields.param("schema")), end)
