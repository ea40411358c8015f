"""The JSON scanner against Python's own reader."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openai_compat.output.json_scan import MAX_DEPTH, JsonScanner

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner,
                                                               max_size=3),
    max_leaves=8,
)  # fmt: skip
TOKENS = st.lists(
    st.sampled_from([*'{}[]:,"\\ \n-+.0123eE', "true", "null", "fals", '"a"', "\\u00e9", "\\x"]),
    max_size=12,
).map("".join)


def scanned(pieces):
    """How much of the pieces is the value, and whether it is whole."""
    scanner, end = JsonScanner(), 0
    for piece in pieces:
        took = scanner.scan(piece, 0)
        end += took
        if took < len(piece):
            break
    return end, scanner.finish() and not scanner.failed


def strict(text):
    def refuse(name):
        raise ValueError(name)

    return json.JSONDecoder(parse_constant=refuse).raw_decode(text)[1]


@settings(max_examples=600, deadline=None)
@given(st.one_of(VALUES.map(json.dumps), TOKENS), st.sampled_from(["", " ", ",", "}", "x"]))
@example("-", "")
@example("1e5", "")
@example("-0.5E+1", "}")
def test_a_value_ends_where_python_says(text, after):
    """Whatever is JSON is read to its end and no further; whatever is not is not whole."""
    if text[:1].isspace():
        return
    try:
        end = strict(text + after)
    except ValueError:
        end = None
    found, whole = scanned([text + after])
    if end is None:
        assert not whole
    elif whole:
        assert found == end
    else:  # Python takes a number's beginning where ours is strict about what follows: 1.x, 01
        assert text[:1] in "-0123456789"
    assert scanned(list(text + after)) == (found, whole)


@pytest.mark.parametrize(("opening", "closing"), ["[]", ('{"a":', "}")])
def test_nesting_is_bounded(opening, closing):
    """A value of the deepest nesting is whole; one deeper is not."""
    inner = "0" if opening != "[" else ""
    deepest = opening * MAX_DEPTH + inner + closing * MAX_DEPTH
    assert scanned([deepest]) == (len(deepest), True)
    assert not scanned([opening + deepest + closing])[1]
