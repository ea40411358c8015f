"""Strict JSON, and refusals that repeat nothing."""

import time

import pytest

from openai_compat.body import parse_body
from openai_compat.errors import RequestRejected


def refused(raw):
    with pytest.raises(RequestRejected) as caught:
        parse_body(raw)
    reply = caught.value.reply
    assert (reply.status, reply.code) == (400, "invalid_json")
    return reply.message


def test_an_object_is_read():
    """JSON of every kind, of a repeated key the last."""
    body = parse_body('{"a":[1,-2.5,null,true,"é\\ud83d\\ude42"],"b":1,"b":2}'.encode())
    assert body == {"a": [1, -2.5, None, True, "é🙂"], "b": 2}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nope",
        b"[]",
        b'"text"',
        b"null",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":01}',
        b'{"a":1,}',
        b'{"a":1}{',
        b"{'a':1}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":"\n"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1}'.decode().encode("utf-16"),
    ],
)
def test_what_is_not_strict_json_is_refused(raw):
    """NaN, surrogates, bad UTF-8, trailing bytes: 400, and no word of the input."""
    refused(raw)


def test_a_refusal_repeats_nothing_of_the_body():
    """A body of megabytes must not come back in the answer."""
    message = refused(b'{"secret-name":"secret-value",' * 3)
    assert "secret" not in message
    assert len(message) < 200


@pytest.mark.parametrize("depth", [64, 65, 40_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_capped_before_anything_recurses(depth, left, right):
    """64 levels with the body's own are fine, 65 are not, 40,000 do no harm."""
    inner = depth - 1
    raw = b'{"a":' + left * inner + b"1" + right * inner + b"}"
    if depth <= 64:
        assert parse_body(raw)
    else:
        assert "64 levels" in refused(raw)


@pytest.mark.parametrize("one", [b"[]", b"{}", b'{"a":1}', b"[[],1]"])
def test_a_body_of_many_small_containers_is_refused_at_once(one):
    """Building a million empty arrays would hold every stream up for half a second."""
    containers = one.count(b"[") + one.count(b"{")
    many = (2 << 20) // (len(one) + 1)
    raw = b'{"x":[' + b",".join([one] * many) + b"]}"
    assert len(raw) < (2 << 20) + 20
    start = time.process_time()
    message = refused(raw)
    assert time.process_time() - start < 0.2  # 0.01 to 0.07 s on a quiet machine
    assert f"{many * containers + 2} arrays and objects; the limit is 50000" in message


def test_a_long_chat_is_far_below_the_container_limit():
    """2048 messages of two parts each, with brackets in their text."""
    part = '{"type":"text","text":"[[{{ x = [\\"a\\"] }}]]' + "a" * 400 + '"}'
    message = f'{{"role":"user","content":[{part},{part}]}}'
    raw = f'{{"messages":[{",".join([message] * 2048)}]}}'.encode()
    assert len(raw) > 1 << 20
    assert len(parse_body(raw)["messages"]) == 2048


@pytest.mark.parametrize("number", [b"9" * 5000, b"9" * (1 << 20), b"1e999", b"-1e999"])
def test_a_number_beyond_all_bounds_is_called_so(number):
    """It is JSON; what is wrong is its length or size."""
    assert "a number is too long or beyond a double" in refused(b'{"a":' + number + b"}")


def test_brackets_inside_strings_are_text():
    """Code in a message does not count as nesting."""
    text = '[{"' * 500
    quoted = text.replace('"', '\\"')
    assert parse_body(f'{{"a":"{quoted}","b":"\\\\"}}'.encode()) == {"a": text, "b": "\\"}


def test_numbers_that_cost_the_parser_most_are_counted():
    """Each with an exponent can take ten microseconds; in strings they are text."""
    assert "1001 numbers with an exponent; the limit is 1000" in refused(b"[" + b"2E3," * 1001)
    text = "1e5 2e-7 9E+9 " * 2000
    assert parse_body(f'{{"a":"{text}","b":[{"1e3," * 999}1e3]}}'.encode())["a"] == text


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b"1e300," * (1 << 20),
        b"[" * (10 << 20),
        b'{"a":"' + b'\\"' * (1 << 20),
        b'"' * (2 << 20),
        b"[]" * (1 << 20),
        b"][" * (1 << 20),
        b'{"a":' * (1 << 20),
        b'{"a":"' + b"[" * (2 << 20),
    ],
)
def test_hostile_megabytes_are_refused_in_little_time(raw):
    """Linear passes only; a quiet machine needs well under 0.1 s."""
    start = time.process_time()
    refused(raw)
    assert time.process_time() - start < 0.5
