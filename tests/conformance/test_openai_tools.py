"""The stock openai-python client: tools, forms, `.parse()` and `.stream()` against a live port.

On the ledger every answer is random within its grammar, and goes on for as long as that lets it:
what holds there holds for any model. What only a model can show runs on the bundled one.
"""

import asyncio
import json
from enum import StrEnum

import openai
import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel, Field

from engines.bundled import penstock_tiny
from gateway.opening import open_engine
from tests.support.live import MODEL, eventually, live, test_settings

BUNDLED = (penstock_tiny() / "model.safetensors").exists()
needs_weights = pytest.mark.skipif(not BUNDLED, reason="no bundled weights here")


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Weather(BaseModel):
    """Get the current weather in a city."""

    city: str = Field(max_length=12)


class Add(BaseModel):
    """Add two numbers."""

    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    colour: Colour
    friends: list["Person"] = Field(max_length=1)


TOOLS = [pydantic_function_tool(Weather, name="get_weather"), pydantic_function_tool(Add)]
LOOSE = [{**tool, "function": {**tool["function"], "strict": False}} for tool in TOOLS]
NAMED = {"type": "function", "function": {"name": "Add"}}
ONE = {"parallel_tool_calls": False}
READ = {"get_weather": Weather, "Add": Add}


@pytest.fixture(scope="module", params=["ledger", pytest.param("torch", marks=needs_weights)])
def server(request):
    """A live server over each engine."""
    settings = test_settings(engine=request.param, max_running=8)
    with live(settings, opener=open_engine) as server:
        yield server


@pytest.fixture
def sdk(server):
    with openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
        yield client


def asked(text="What is the weather in Rome?", **fields):
    """A chat at temperature 1 with a seed, so that it is the same each time."""
    messages = [{"role": "user", "content": text}]
    told = {"model": MODEL, "messages": messages, "max_tokens": 400, "temperature": 1, "seed": 5}
    return {**told, **fields}


def read_calls(message):
    """The arguments of each call, by its own model: raises where they are not valid."""
    calls = message.tool_calls or []
    assert len({call.id for call in calls}) == len(calls)
    return [READ[c.function.name].model_validate_json(c.function.arguments) for c in calls]


def test_parse_gives_a_model(sdk):
    """A pydantic model becomes a strict schema and its answer an instance."""
    answer = sdk.chat.completions.parse(**asked("Invent a person."), response_format=Person)
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, Person)
    assert Person.model_validate_json(choice.message.content) == choice.message.parsed


def test_parse_gives_calls(sdk):
    """Strict tools of pydantic models, required: parsed arguments."""
    answer = sdk.chat.completions.parse(**asked(**ONE), tools=TOOLS, tool_choice="required")
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert read_calls(choice.message)
    assert all(
        isinstance(c.function.parsed_arguments, BaseModel) for c in choice.message.tool_calls
    )


def test_streams_and_answers_are_the_same(sdk):
    """One seed, one answer: told at once, in chunks, or through the helper."""
    usage = {"include_usage": True}
    body = asked(**ONE, tools=LOOSE, tool_choice="required", stream_options=usage)
    whole = sdk.chat.completions.create(**body)
    with sdk.chat.completions.stream(**body) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    told = [(call.function.name, call.function.arguments) for call in calls(whole)]
    assert [(call.function.name, call.function.arguments) for call in calls(final)] == told
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [(event.name, event.arguments) for event in done] == told
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason == "tool_calls"
    assert final.usage.completion_tokens == whole.usage.completion_tokens


def calls(answer):
    return answer.choices[0].message.tool_calls


@needs_weights
@pytest.mark.parametrize("server", ["torch"], indirect=True)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_deltas_are_openais(sdk, choice):
    """Id, type and name once per call, dense indices in order, arguments as growing text."""
    body = asked(
        "What is the weather in Rome and in Oslo?", tools=LOOSE, tool_choice=choice, stream=True,
        temperature=0,
    )  # fmt: skip
    deltas = [
        call
        for chunk in sdk.chat.completions.create(**body)
        for call in chunk.choices[0].delta.tool_calls or ()
    ]
    seen = -1
    for delta in deltas:
        fields = set(delta.model_dump(exclude_unset=True))
        if delta.index == seen + 1:
            seen += 1
            assert fields == {"index", "id", "type", "function"}
            assert delta.function.name in READ
            assert delta.function.arguments == ""
        else:
            assert delta.index == seen
            assert fields == {"index", "function"}
            assert delta.function.model_dump(exclude_unset=True).keys() == {"arguments"}
    assert seen >= 1
    for index in range(seen + 1):
        text = "".join(d.function.arguments for d in deltas if d.index == index)
        json.loads(text)


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_call_is_one_and_ends_with_stop(sdk, stream):
    """As OpenAI tells it."""
    answer = sdk.chat.completions.create(**asked(tools=LOOSE, tool_choice=NAMED, stream=stream))
    if stream:
        chunks = list(answer)
        names = [
            call.function.name
            for chunk in chunks
            for call in chunk.choices[0].delta.tool_calls or ()
            if call.function.name
        ]
        assert (names, chunks[-1].choices[0].finish_reason) == (["Add"], "stop")
    else:
        assert [call.function.name for call in calls(answer)] == ["Add"]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].message.content is None


def test_one_call_where_parallel_calls_are_off(sdk):
    """Whatever the seed, whether the model must call or may."""
    for seed in range(3):
        for choice in ("required", "auto"):
            body = asked("Weather in Rome and in Oslo?", tools=LOOSE, tool_choice=choice)
            answer = sdk.chat.completions.create(
                **{**body, "seed": seed}, parallel_tool_calls=False
            )
            assert len(calls(answer) or ()) <= 1
            assert choice == "auto" or len(calls(answer)) == 1


def test_only_allowed_tools_are_called(sdk):
    """A subset, which must be used."""
    chosen = [{"type": "function", "function": {"name": "Add"}}]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": chosen}}
    answer = sdk.chat.completions.create(**asked(tools=LOOSE, tool_choice=allowed, **ONE))
    assert {call.function.name for call in calls(answer)} == {"Add"}


def test_no_calls_where_none_are_wanted(sdk):
    """Not even when the model would."""
    answer = sdk.chat.completions.create(**asked(tools=LOOSE, tool_choice="none", max_tokens=40))
    assert calls(answer) is None


def test_tools_and_a_form_in_one_request(sdk):
    """Each answer is calls by their schemas or content in its form."""
    for seed in range(6):
        body = {**asked(tools=TOOLS, response_format=Person, **ONE), "seed": seed}
        choice = sdk.chat.completions.parse(**body).choices[0]
        called = read_calls(choice.message)
        assert bool(called) != bool(choice.message.parsed)
        assert choice.finish_reason == ("tool_calls" if called else "stop")


def test_a_grammar_that_cannot_be_compiled_is_a_400(sdk):
    """Its field, a code, and what is wrong, before anything is streamed."""
    for extra, code in (
        ({"guided_regex": "(?=a)b"}, "invalid_grammar"),
        ({"guided_grammar": "start: nowhere"}, "invalid_grammar"),
        ({"guided_json": {"type": "string", "pattern": "("}}, "invalid_json_schema"),
    ):
        with pytest.raises(openai.BadRequestError) as refusal:
            sdk.chat.completions.create(**asked(stream=True), extra_body=extra)
        assert (refusal.value.code, refusal.value.param) == (code, next(iter(extra)))


def test_a_hostile_grammar_is_a_400(sdk):
    """Thirty thousand brackets cost one refusal; the next grammar is checked as before."""
    hostile = "start: " + "(" * 30_000 + '"a"' + ")" * 30_000
    with pytest.raises(openai.BadRequestError) as refusal:
        sdk.chat.completions.create(**asked(), extra_body={"guided_grammar": hostile})
    assert refusal.value.code == "invalid_grammar"
    answer = sdk.chat.completions.create(**asked(), extra_body={"guided_choice": ["yes"]})
    assert answer.choices[0].message.content == "yes"


def test_the_async_client_calls_at_once(server):
    """Several grammars side by side, each its own."""

    async def main():
        async with openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
            wanted = [f"word{number}" for number in range(12)]
            bodies = [asked(extra_body={"guided_choice": [word]}) for word in wanted]
            calls = [client.chat.completions.create(**body) for body in bodies]
            answers = await asyncio.gather(*calls)
            assert [answer.choices[0].message.content for answer in answers] == wanted

    asyncio.run(main())
    eventually(server.quiet)


def test_a_text_completion_has_a_form_too(sdk):
    """The same names on the older route."""
    answer = sdk.completions.create(
        model=MODEL, prompt="A number:", max_tokens=20, extra_body={"guided_regex": "[0-9]{3}"}
    )
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices[0].text) == 3
    assert answer.choices[0].text.isdecimal()


def test_a_stop_string_still_cuts(sdk):
    """Who asks for a form and a stop string gets both."""
    answer = sdk.chat.completions.create(
        **asked(stop=" two"), extra_body={"guided_choice": ["one two three"]}
    )
    assert answer.choices[0].message.content == "one"
    assert answer.choices[0].finish_reason == "stop"


def test_choices_of_one_call_have_their_own_grammar(sdk):
    """Each is valid by itself."""
    answer = sdk.chat.completions.create(**asked(n=3), extra_body={"guided_regex": "[0-9]{6}"})
    texts = [choice.message.content for choice in answer.choices]
    assert all(len(text) == 6 and text.isdecimal() for text in texts)


def test_the_operator_names_syntaxes_and_ends():
    """No syntax: tools are refused with the flag; agents may want tool_calls for a named call."""
    settings = test_settings(engine="ledger", named_call_finish="tool_calls")
    with live(settings, opener=open_engine) as server:
        sdk = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
        answer = sdk.chat.completions.create(**asked(tools=LOOSE, tool_choice=NAMED))
        assert answer.choices[0].finish_reason == "tool_calls"
    with live(test_settings(engine="ledger", tool_parser="none"), opener=open_engine) as server:
        sdk = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
        with pytest.raises(openai.BadRequestError, match="--tool-parser") as refusal:
            sdk.chat.completions.create(**asked(tools=LOOSE))
        assert (refusal.value.param, refusal.value.code) == ("tools", "tools_not_supported")
