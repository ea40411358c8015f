"""Input items to what is stored of them, and to the prompt; conversations that go on."""

import json
from dataclasses import replace

import pytest

from openai_compat.errors import ContextLengthExceeded, NotFound, RequestRejected
from openai_compat.fields import Fields
from openai_compat.responses.items import ItemReader
from openai_compat.responses.stored import Past, referred_ids
from openai_compat.responses.truncate import fitted
from tests.support.messages import THINKER, prompt_of, token_events
from tests.support.responses import ROUND, WEATHER, folded, response, stored
from tests.support.tokenizers import CALL, served_model

USER = {"role": "user", "content": "hello"}
CALLING = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"q": "sea"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "wet"}
THOUGHT = {
    "type": "reasoning",
    "id": "rs_9",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "hm"}],
}
SAID = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "well", "annotations": []}],
}


def read(value):
    return ItemReader("abc123", {}).read(Fields({"input": value}))


def prompt(value, **fields):
    return prompt_of(response(THINKER, input=value, **fields).job)


def refused(value):
    with pytest.raises(RequestRejected) as caught:
        response(THINKER, input=value)
    return caught.value.reply


@pytest.mark.parametrize(
    "value",
    [
        "hello",
        [USER],
        [{"type": "message", **USER}],
        [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
    ],
)
def test_a_user_message_has_one_shape_in_the_store(value):
    """However it was sent."""
    assert read(value) == [
        {
            "id": "msg_abc123_i0",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "hello"}],
        }
    ]


def test_every_kind_of_item_is_kept_whole():
    """With the ids that came, or ours."""
    call, output, thought, said = read([CALLING, OUTPUT, THOUGHT, SAID])
    assert call == {"id": "fc_abc123_i0", "status": "completed", **CALLING}
    assert output == {"id": "fco_abc123_i1", "status": "completed", **OUTPUT}
    assert thought == {"status": "completed", **THOUGHT}
    assert said["content"] == [
        {"type": "output_text", "annotations": [], "logprobs": [], "text": "well"}
    ]
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert read([CALLING, {**OUTPUT, "output": parts}])[1]["output"] == parts


def test_a_turn_of_the_model_is_one_message_of_the_template():
    """Reasoning, text and calls belong together; outputs follow with the name of their call."""
    text = prompt([USER, THOUGHT, SAID, CALLING, OUTPUT, {"role": "user", "content": "so?"}])
    assert text == (
        "<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\n<think>hm</think>well(c1 f sea)<|im_end|>\n"
        "<|im_start|>tool c1 f\nwet<|im_end|>\n"
        "<|im_start|>user\nso?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_two_turns_of_the_model_stay_two():
    """Text after text, and reasoning after text, begin anew."""
    assert prompt([SAID, SAID, THOUGHT, SAID]).count("assistant\n") == 4
    assert prompt([CALLING, {**CALLING, "call_id": "c2"}]).count("assistant\n") == 2


def test_instructions_come_first():
    """As a system message, before what is continued."""
    text = prompt([USER], instructions="be brief")
    assert text.startswith("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello")


@pytest.mark.parametrize(
    ("value", "param", "code"),
    [
        ([{"role": "critic", "content": "x"}], "input[0].role", "invalid_value"),
        ([{"role": "user"}], "input[0].content", "invalid_value"),
        ([{"role": "user", "content": [5]}], "input[0].content[0]", "invalid_value"),
        ([{"role": "user", "content": [{"type": "output_text", "text": "x"}]}],
         "input[0].content[0].type", "invalid_value"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}],
         "input[0].content[0].type", "unsupported_parameter"),
        ([{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}],
         "input[0].content[0].type", "unsupported_parameter"),
        ([{"role": "assistant", "content": [{"type": "refusal", "refusal": "x"}]}],
         "input[0].content[0].type", "unsupported_parameter"),
        ([{"role": "user", "content": [{"type": "input_text", "text": 5}]}],
         "input[0].content[0].text", "invalid_value"),
        ([{"role": "user", "content": "x", "status": "odd"}], "input[0].status", "invalid_value"),
        ([{"role": "assistant", "content": "x", "phase": "odd"}], "input[0].phase",
         "invalid_value"),
        ([{"type": "web_search_call", "id": "ws_1"}], "input[0].type", "unsupported_parameter"),
        ([{"type": "compaction", "id": "x"}], "input[0].type", "unsupported_parameter"),
        ([{**CALLING, "call_id": None}], "input[0].call_id", "invalid_value"),
        ([{**CALLING, "arguments": {}}], "input[0].arguments", "invalid_value"),
        ([{**CALLING, "namespace": "x"}], "input[0].namespace", "unsupported_parameter"),
        ([{**CALLING, "caller": {"type": "program"}}], "input[0].caller", "unsupported_parameter"),
        ([OUTPUT], "input[0].call_id", "invalid_value"),
        ([CALLING, {**OUTPUT, "output": 5}], "input[1].output", "invalid_value"),
        ([CALLING, {**OUTPUT, "output": [{"type": "input_image"}]}], "input[1].output[0].type",
         "unsupported_parameter"),
        ([{**THOUGHT, "encrypted_content": "x"}], "input[0].encrypted_content",
         "unsupported_parameter"),
        ([{**THOUGHT, "summary": "x"}], "input[0].summary", "invalid_value"),
    ],
)  # fmt: skip
def test_items_are_refused_by_place(value, param, code):
    """And never repeated."""
    reply = refused(value)
    assert (reply.status, reply.param, reply.code) == (400, param, code)


def first_turn():
    """A response with reasoning, text and a call, as it is stored."""
    asked = response(THINKER, tools=[WEATHER])
    answer = folded(asked, token_events(ROUND))
    return answer, stored(asked)


def test_a_conversation_goes_on_where_it_was():
    """Input and output of what came before, then the new input; instructions do not come along."""
    answer, before = first_turn()
    call = answer["output"][2]
    text = prompt_of(
        response(
            THINKER,
            past=Past((before,)),
            call=replace(CALL, id="def456"),
            previous_response_id=before.key.id,
            input=[{"type": "function_call_output", "call_id": call["call_id"], "output": "wet"}],
        ).job
    )
    assert text.startswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n<think>")
    assert f"({call['call_id']} get_weather the sea)<|im_end|>" in text
    assert text.endswith(
        f"<|im_start|>tool {call['call_id']} get_weather\nwet<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_call_that_broke_off_has_no_place_in_what_follows():
    """Its arguments are no JSON."""
    asked = response(THINKER, tools=[WEATHER])
    folded(asked, token_events(ROUND[:-30], end="length"))
    kinds = [item["type"] for item in Past((stored(asked),)).items()]
    assert kinds == ["message", "reasoning", "message"]


def test_items_are_referred_to_by_their_ids():
    """With the type or without; those of inputs too; an unknown one is 404."""
    _, before = first_turn()
    body = {
        "input": [
            {"type": "item_reference", "id": "msg_abc123_i0"},
            {"id": "msg_abc123_1"},
            {"type": "item_reference", "id": "made-by-somebody"},
            {"role": "user", "id": "msg_zzz_0", "content": "x"},
        ]
    }
    assert referred_ids(body) == {"resp_abc123"}
    text = prompt_of(response(THINKER, past=Past(referred=(before,)), input=body["input"][:2]).job)
    assert text.startswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(NotFound) as caught:
        response(past=Past(referred=(before,)), input=[{"id": "msg_abc123_7"}])
    assert (caught.value.reply.code, caught.value.reply.param) == ("item_not_found", "input[0].id")


@pytest.mark.parametrize("value", [None, 5, [5], [{"id": 5}], [{"id": "x"}], [{"id": "resp_1"}]])
def test_references_are_looked_for_in_anything(value):
    """The body was not checked yet."""
    assert referred_ids({"input": value}) == set()


SMALL = served_model(max_context=120)


def turns(count, size=10):
    said = "hello " * (size // 2)
    one = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
    return [*(item for _ in range(count) for item in one), {"role": "user", "content": "END"}]


def test_truncation_drops_the_oldest_turns_until_it_fits():
    """No more than needed, and the instructions stay; disabled refuses instead."""
    with pytest.raises(ContextLengthExceeded):
        response(SMALL, input=turns(9))
    asked = response(SMALL, input=turns(9), truncation="auto", instructions="hello",
                     max_output_tokens=4)  # fmt: skip
    prompt = asked.job.requests[0].prompt
    assert len(prompt) + 4 <= 120
    text = prompt_of(asked.job, SMALL)
    assert text.startswith("<|im_start|>system\nhello<|im_end|>\n<|im_start|>user\nhello hello")
    assert "user\nEND" in text
    more = text.count("user\n")  # turns with one more than were kept
    with pytest.raises(ContextLengthExceeded):
        response(SMALL, input=turns(more), instructions="hello", max_output_tokens=4)
    assert len(json.loads(asked.input)) == 19, "the store keeps all that was sent"


def test_truncation_leaves_a_conversation_that_fits_alone():
    """And refuses one whose last item alone is too long."""
    assert prompt_of(response(SMALL, truncation="auto").job, SMALL) == prompt_of(
        response(SMALL).job, SMALL
    )
    with pytest.raises(ContextLengthExceeded):
        response(SMALL, truncation="auto", input="hello " * 99)


ITEMS = [
    {"type": "message", "role": "user"},  # 0
    {"type": "reasoning"},
    {"type": "function_call", "call_id": "a"},
    {"type": "function_call_output", "call_id": "a"},
    {"type": "function_call", "call_id": "b"},  # 4
    {"type": "function_call_output", "call_id": "b"},
    {"type": "message", "role": "user"},  # 6
    {"type": "reasoning"},
    {"type": "function_call", "call_id": "c"},
    {"type": "function_call_output", "call_id": "c"},
    {"type": "function_call", "call_id": "d"},  # 10
    {"type": "function_call_output", "call_id": "d"},
]


@pytest.mark.parametrize(("fits_from", "cut"), [(0, 0), (1, 6), (6, 6), (7, 7), (8, 10), (10, 10)])
def test_a_cut_is_where_a_user_speaks_else_where_nothing_is_torn(fits_from, cut):
    """No output without its call, no half of a turn of the model."""

    def lower(first):
        if first < fits_from:
            raise ContextLengthExceeded("too long", param="input")
        return first

    assert fitted(ITEMS, lower) == cut


def test_a_cut_that_nothing_makes_short_enough_is_refused():
    """With the refusal of the whole."""

    def lower(first):
        raise ContextLengthExceeded(f"{first}", param="input")

    with pytest.raises(ContextLengthExceeded, match="0"):
        fitted(ITEMS, lower)
