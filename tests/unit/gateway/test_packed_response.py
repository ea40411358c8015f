"""Stored responses as values of Redis: the way there and back, and what cannot be read."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.redis.packed_response import UnknownForm, pack, tag_of, unpack
from openai_compat.responses.snapshot import Status
from openai_compat.responses.stored import Key, StoredResponse

RESPONSES = st.builds(
    StoredResponse,
    st.builds(Key, st.binary(max_size=32), st.text()),
    st.sampled_from([status for status in Status if not status.live]),
    st.binary(),
    st.binary(),
    st.none() | st.text(),
    background=st.booleans(),
    obfuscated=st.booleans(),
    events=st.lists(st.binary(), max_size=3),
    first_event=st.integers(0, 9),
)


@given(RESPONSES)
def test_what_is_packed_comes_back(response):
    """All but the events, of which it is known how many there were."""
    found = unpack(response.key, pack(response))
    end = response.first_event + len(response.events)
    assert found == replace(response, events=(), first_event=end)
    assert found.size == response.size


ONE = pack(
    StoredResponse(Key(b"t", "resp_1"), Status.COMPLETED, b"{}", b"[]", None, background=False)
)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"\n", b"{}\n", b"\x80\x04.", ONE.replace(b'"v":1', b'"v":2'),
        ONE.replace(b"completed", b"thinking"), ONE.replace(b'"body":2', b'"body":5'),
        ONE.replace(b'"body":2', b'"body":-1'), ONE[:20],
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_apart(value):
    """Of a later version, cut, or nothing of ours."""
    with pytest.raises(UnknownForm):
        unpack(Key(b"t", "resp_1"), value)


def test_a_later_head_may_tell_more():
    """A field that a reader of this version does not know is left out."""
    value = ONE.replace(b'{"v":1', b'{"more":[],"v":1')
    assert unpack(Key(b"t", "resp_1"), value).status is Status.COMPLETED


def test_a_tag_tells_neither_tenant_nor_id():
    """And no two have the same."""
    keys = [Key(b"ada", "resp_1"), Key(b"bob", "resp_1"), Key(b"ada", "resp_2"), Key(b"", "resp_1")]
    tags = [tag_of(key) for key in keys]
    assert len(set(tags)) == 4
    assert all(len(tag) == 40 and "resp" not in tag for tag in tags)
