"""Deltas to content blocks, whatever parser gave them."""

import pytest

from openai_compat.anthropic.answer import content_blocks
from openai_compat.anthropic.blocks import BlockSequence
from openai_compat.output.delta import CallArguments, CallBegin, CallEnd, Reasoning, Text

CALL = (CallBegin(0, "f", "call_1"), CallArguments(0, "{}"), CallEnd(0))


def blocks(*deltas, **options):
    """The blocks, given one delta at a time; and as (kind, text) where they have text."""
    sequence = BlockSequence(**options)
    steps = [step for delta in deltas for step in sequence.feed([delta])]
    return content_blocks([*steps, *sequence.finish()])


def told(*deltas):
    return [
        (block["type"], block.get("text", block.get("thinking", ""))) for block in blocks(*deltas)
    ]


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ((), []),
        ((Text("a"), Text("b")), [("text", "ab")]),
        ((Text(" "), Text("a")), [("text", " a")]),
        ((Text("a"), Text(" ")), [("text", "a ")]),
        ((Text(" "), Text("\n")), [("text", " \n")]),
        ((Reasoning("\n"),), []),
        ((Reasoning("\n"), Text("a")), [("text", "a")]),
        ((Reasoning("a"), Text("\n"), Text("b")), [("thinking", "a"), ("text", "\nb")]),
        ((Reasoning("a"), Text("\n")), [("thinking", "a")]),
        ((Text("\n"), *CALL, Text("a")), [("tool_use", ""), ("text", "a")]),
        ((Text("a"), *CALL, Text("\n")), [("text", "a"), ("tool_use", "")]),
        ((Text("a"), Reasoning(" "), Text("b")), [("text", "ab")]),
        ((Text("a"), Reasoning("b"), Text("c")), [("text", "a"), ("thinking", "b"), ("text", "c")]),
    ],
)
def test_white_space_alone_makes_no_block_beside_others(deltas, expected):
    """It stays where it leads or follows text, and where it is all there is."""
    assert told(*deltas) == expected


def test_every_thought_is_signed_for_itself():
    """However it was cut, and wherever it stands."""
    first, _, second, *_ = blocks(Reasoning("a"), Reasoning("b"), Text("x"), Reasoning("ab"))
    assert first == second
    assert first["signature"]
    other, *_ = blocks(Reasoning("abc"))
    assert other["signature"] != first["signature"]


def test_an_omitted_thought_is_signed_by_its_text():
    """So that the same one is known again."""
    shown, hidden = (blocks(Reasoning("a"), omit_thinking=omit)[0] for omit in (False, True))
    assert hidden == {**shown, "thinking": ""}


def test_a_models_own_call_ids_stay():
    """Only those that the lowering made are respelled."""
    own = (CallBegin(1, "f", "functions.f:0"), CallEnd(1))
    assert [block["id"] for block in blocks(*CALL, *own)] == ["toolu_1", "functions.f:0"]
