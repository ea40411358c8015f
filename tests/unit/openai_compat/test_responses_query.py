"""The query strings of stored responses."""

import json

import pytest

from openai_compat.errors import RequestRejected
from openai_compat.responses.query import read_page, read_retrieval

ITEMS = [{"id": f"msg_{place}"} for place in range(45)]


def page(*query):
    return json.loads(read_page(query).of(ITEMS))


def test_a_page_is_the_newest_items_first():
    """Twenty, unless told."""
    first = page()
    assert [item["id"] for item in first["data"]] == [f"msg_{44 - at}" for at in range(20)]
    assert (first["first_id"], first["last_id"], first["has_more"]) == ("msg_44", "msg_25", True)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 7, 45, 100])
def test_pages_add_up_to_all_items(order, limit):
    """Each once, in order, to the end."""
    found, query = [], []
    while True:
        got = page(("order", order), ("limit", str(limit)), *query)
        found += got["data"]
        if not got["has_more"]:
            break
        query = [("after", got["last_id"])]
    assert found == (ITEMS if order == "asc" else ITEMS[::-1])


def test_an_empty_page_has_no_ids():
    """As after the last item."""
    got = page(("order", "asc"), ("after", "msg_44"))
    assert got == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"), ("limit", "101"), ("limit", "x"), ("limit", "-1"), ("limit", "1" * 5000),
        ("order", "up"), ("after", "msg_99"), ("include", "nope"), ("limit", "٣"),
    ],
)  # fmt: skip
def test_a_wrong_page_is_refused_by_name(name, value):
    """And never repeated."""
    with pytest.raises(RequestRejected) as caught:
        page((name, value))
    assert caught.value.reply.param in (name, "include[0]")


def test_a_retrieval():
    """Whole, or as a stream after an event."""
    assert not read_retrieval([]).stream
    asked = read_retrieval([("stream", "true"), ("starting_after", "7")])
    assert (asked.stream, asked.after, asked.obfuscated) == (True, 7, None)
    assert read_retrieval([("include[]", "message.output_text.logprobs")]).after == -1
    assert read_retrieval([("include_obfuscation", "false")]).obfuscated is False


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ([("stream", "yes")], "stream"),
        ([("starting_after", "3")], "starting_after"),
        ([("stream", "true"), ("starting_after", "-1")], "starting_after"),
        ([("stream", "true"), ("starting_after", "x")], "starting_after"),
        ([("include_obfuscation", "1")], "include_obfuscation"),
        ([("include[]", "file_search_call.results")], "include[0]"),
    ],
)
def test_a_wrong_retrieval_is_refused_by_name(query, param):
    """And never repeated."""
    with pytest.raises(RequestRejected) as caught:
        read_retrieval(query)
    assert caught.value.reply.param == param
