"""One table of every request field of both routes: it works, or it is refused by its name."""

import pytest

from openai_compat.chat import schema as chat_schema
from openai_compat.completions import schema as text_schema
from openai_compat.errors import RequestRejected
from openai_compat.openapi import chat as chat_document
from openai_compat.openapi import completions as text_document
from tests.support.field_rows import REFUSED, WORKS
from tests.support.fields import CHAT, PLAIN, TEXT, changes_nothing, lower
from tests.support.rival_fields import RIVALS

DESCRIBED = {CHAT: chat_document.DESCRIBED, TEXT: text_document.DESCRIBED}
SCHEMAS = {CHAT: chat_schema, TEXT: text_schema}


def rows(table):
    return [
        pytest.param(route, row, id=f"{route}-{row.name}-{place}")
        for place, row in enumerate(table)
        for route in row.on
    ]


def with_field(row):
    """The fields of a row's call; a dot stands for an object around the last name."""
    outer, _, inner = row.name.partition(".")
    return {**row.more, outer: {inner: row.value} if inner else row.value}


@pytest.mark.parametrize(("route", "row"), rows(WORKS))
def test_a_field_that_is_accepted_does_what_it_says(route, row):
    """Seen in the engine's request or in the answer; and it is no unknown field."""
    job = lower(route, row.model, **with_field(row))
    assert row.name.partition(".")[0] not in job.ignored
    row.holds(job)


@pytest.mark.parametrize(("route", "row"), rows(REFUSED))
def test_a_value_that_cannot_be_followed_is_refused_by_name(route, row):
    """400 before anything runs, with the field in `param` and a code."""
    with pytest.raises(RequestRejected) as caught:
        lower(route, row.model, **with_field(row))
    reply = caught.value.reply
    param = row.param or row.name
    assert (reply.status, reply.param) == (400, param)
    assert row.code is None or reply.code == row.code


def neutral_rows():
    for route, schema in SCHEMAS.items():
        for name, values in schema.UNSUPPORTED.items():
            for value in (None, *values):
                yield pytest.param(route, name, value, id=f"{route}-{name}-{value}")


@pytest.mark.parametrize(("route", "name", "value"), list(neutral_rows()))
def test_a_default_of_what_is_not_supported_asks_for_nothing(route, name, value):
    """SDKs and frameworks send defaults explicitly."""
    changes_nothing(lower(route, PLAIN, **{name: value}))


@pytest.mark.parametrize("route", SCHEMAS)
def test_the_table_has_every_field(route):
    """What is acted on has a row that shows it; what is not has one that refuses it; no others."""
    schema = SCHEMAS[route]
    shown = {row.name.partition(".")[0] for row in WORKS if route in row.on}
    refused = {row.name.partition(".")[0] for row in REFUSED if route in row.on}
    assert schema.ACTED_ON - shown == set()
    assert schema.KNOWN - refused == set()
    assert (shown | refused) - schema.KNOWN == set()


@pytest.mark.parametrize("route", SCHEMAS)
def test_every_field_that_acts_is_described(route):
    """openapi.json tells what it takes."""
    assert SCHEMAS[route].ACTED_ON - DESCRIBED[route].keys() == set()


@pytest.mark.parametrize("route", SCHEMAS)
def test_every_field_of_the_rivals_is_known(route):
    """Nothing that a client of vLLM or SGLang may send is unknown here."""
    assert RIVALS[route] - SCHEMAS[route].KNOWN == set()
