"""Python literals as JSON, against Python's own reader."""

import ast
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from openai_compat.output import python_literal
from openai_compat.output.cursor import Cursor, ScriptedParser
from openai_compat.output.delta import Text

LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3
    ),
    max_leaves=8,
)  # fmt: skip
ESCAPES = st.lists(
    st.sampled_from(["\\n", "\\'", '\\"', "\\\\", "\\x41", "\\u00e9", "\\U0001F600", "\\101",
                     "\\0", "\\q", "\\\n", "\\a", "x", "7"]),
    max_size=8,
).map("".join)  # fmt: skip


def translated(text):
    """The JSON text of a literal, letter by letter; None where it is none."""
    done = []

    def script(cursor: Cursor):
        done.append((yield from python_literal.value(cursor, cursor.give)))

    parser = ScriptedParser(script)
    parts = [part for letter in text for part in parser.feed(letter)] + list(parser.finish())
    assert all(isinstance(part, Text) for part in parts)
    return "".join(part.text for part in parts) if done == [True] else None


@settings(max_examples=500, deadline=None)
@given(LITERALS)
def test_a_literal_keeps_its_value(value):
    """What Python writes is read as the value it stands for."""
    assert json.loads(translated(repr(value))) == value


@settings(max_examples=400, deadline=None)
@given(ESCAPES, st.sampled_from("'\""))
def test_escapes_are_python_escapes(inside, quote):
    """A string's escapes mean what they mean to Python."""
    literal = quote + inside + quote
    assert json.loads(translated(literal)) == ast.literal_eval(literal.replace("\\q", "\\\\q"))


def test_what_is_no_plain_literal_is_refused():
    """Names, sums, calls, tuples, prefixes, and keys that are no strings are not values."""
    for text in ("x", "(1, 2)", "r'a'", "{1: 2}", "[1", "01", "1_000", "'a", "'\\N{DASH}'", "{'a'}",
                 "'\\x4'", "'\\UFFFFFFFF'", "-", "[,]", "nan"):  # fmt: skip
        assert translated(text) is None, text
