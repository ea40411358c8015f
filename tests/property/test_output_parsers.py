"""Output parsers against any text and any cutting of it."""

import itertools
import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from openai_compat.output.registry import reasoning_syntaxes, tool_syntaxes
from tests.support.outputs import FUNCTIONS, OUTPUTS, parser_of, run

PARSERS = sorted(
    {row[0] for row in OUTPUTS} | set(tool_syntaxes()) | {"think+xml", "mistral+mistral"}
)
TEXTS = {name: [row[1] for row in OUTPUTS if row[0] == name] for name in PARSERS}
COMMON = (
    *(
        " ",
        "\n",
        "\n\n",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        '"',
        "'",
        "\\",
        ",",
        ":",
        "=",
        ";",
        "<",
        ">",
    ),
    *("get_weather", "now", "free", "city", "days", "functions.", ":0", "name", "arguments", "a"),
    *(
        '{"name": "now", "arguments": {',
        '"parameters": ',
        "true",
        "None",
        "-1.5e3",
        "0",
        "é",
        "\\u00",
    ),
    *('{"a": [1', "```json\n", "```", "function", "to=", "assistant", "analysis", "final", "text"),
    *(
        "<",
        ">",
        "<function=",
        "<parameter=",
        "</parameter>",
        "</function>",
        "\x00",
        "\ud83d",
        "é",
        "◁",
        "\uff5c",
    ),
)


def markers(name):
    """The markers of a parser's syntaxes, their beginnings and their ends."""
    names = [part.removeprefix("think:") for part in name.split("+")]
    known = [*tool_syntaxes().values(), *reasoning_syntaxes().values()]
    texts = [text for each in known if each.name in names for text in each.specials]
    return [
        *texts,
        *(text[: len(text) // 2] for text in texts),
        *(text[-len(text) // 3 :] for text in texts),
    ]


@st.composite
def outputs(draw):
    """Right outputs, outputs with parts lost, doubled or replaced, and rubble of fragments."""
    name = draw(st.sampled_from(PARSERS))
    fragments = st.one_of(
        st.sampled_from(COMMON), st.sampled_from(markers(name)), st.text(max_size=4)
    )
    rubble = st.lists(fragments, max_size=14).map("".join)
    text = draw(st.sampled_from(TEXTS[name])) if TEXTS[name] else ""
    for _ in range(draw(st.integers(0, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        kept = draw(st.sampled_from(("", text[start:end], text[start:end] * 2)))
        text = text[:start] + kept + draw(st.one_of(rubble, fragments)) + text[end:]
    if draw(st.booleans()):
        text += draw(rubble)
    return name, text


def cut(text, cuts):
    edges = [0, *sorted(min(place, len(text)) for place in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=800, deadline=None)
@given(outputs(), st.lists(st.integers(0, 300), max_size=12), st.booleans())
def test_any_cutting_gives_the_same_parts(output, cuts, opened):
    """Whole, letter by letter or cut at will, joined parts and their order are equal."""
    name, text = output
    whole = run(parser_of(name, opened=opened), [text])
    assert run(parser_of(name, opened=opened), list(text)) == whole
    assert run(parser_of(name, opened=opened), cut(text, cuts)) == whole


@settings(max_examples=800, deadline=None)
@given(outputs())
def test_whatever_comes_whole_calls_are_calls(output):
    """A call that ends has a name we know and arguments that are JSON, however bad the text."""
    name, text = output
    for called, _, arguments, whole in run(parser_of(name), [text]).calls:
        assert called in {function.name for function in FUNCTIONS}
        if whole:
            json.loads(arguments)


@settings(max_examples=600, deadline=None)
@given(outputs())
def test_text_without_calls_is_content_as_it_is(output):
    """Where no call is found not a character is lost or changed."""
    name, text = output
    if name in tool_syntaxes() and name != "harmony":
        found = run(parser_of(name), list(text))
        if not found.calls:
            assert found.content == text


@settings(max_examples=200, deadline=None)
@given(outputs())
def test_only_what_may_be_a_marker_is_held_back(output):
    """Prose is given as it comes, but for line ends and the beginning of a marker."""
    name, text = output
    if name not in tool_syntaxes() or name in ("harmony", "llama3_json", "pythonic"):
        return
    prose = "x" + re.sub(r"[<\[\n]", "", text)
    parser = parser_of(name)
    assert "".join(part.text for letter in prose for part in parser.feed(letter)) == prose
