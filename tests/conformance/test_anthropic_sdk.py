"""The stock anthropic client against a live port: what it sends, parses, adds up and raises.

Answers that matter are scripted, or the bundled model's own; the rest is on the ledger.
"""

import asyncio
import threading
import time

import anthropic
import pydantic
import pytest

from engines.bundled import penstock_tiny
from gateway.opening import open_engine
from gateway.setting_kinds import Secret
from tests.support.live import MODEL, eventually, ledger_opener, live, test_settings
from tests.support.messages import WEATHER
from tests.support.scripted import scripted

KEY = "sk-test-key"
BUNDLED = (penstock_tiny() / "model.safetensors").exists()
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"q": "the sea"}}\n</tool_call>'


def client(server, **options):
    base = server.url.removesuffix("/v1")
    return anthropic.Anthropic(**{"base_url": base, "api_key": KEY, "max_retries": 0, **options})


def ask(content="Hello there", **fields):
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "max_tokens": 64, "messages": messages, **fields}


@pytest.fixture(scope="module")
def stage():
    with scripted(test_settings(api_key=(Secret(KEY),))) as (server, script):
        yield server, script


@pytest.fixture
def sdk(stage):
    with client(stage[0]) as sdk:
        yield sdk


@pytest.fixture
def script(stage):
    return stage[1]


def test_a_message_is_parsed(sdk, script):
    """Id, content, reason and usage are where the SDK's types want them."""
    script.says("Hello!")
    answer = sdk.messages.create(**ask(system="Be kind."))
    assert answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", MODEL)
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "Hello!"}]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    usage = answer.usage
    assert usage.cache_read_input_tokens == 8
    assert usage.input_tokens == len(script.requests[-1].prompt) - 8
    assert usage.output_tokens > 0
    assert answer._request_id


@pytest.mark.parametrize("options", [{}, {"api_key": None, "auth_token": KEY}])
def test_both_of_its_credentials_are_taken(stage, options):
    """Whichever header its version sends them in."""
    with client(stage[0], **options) as sdk:
        assert sdk.messages.create(**ask()).content
    with client(stage[0], api_key=None, auth_token=None) as sdk:
        bare = {"x-api-key": KEY, "authorization": anthropic.Omit()}
        assert sdk.messages.create(**ask(), extra_headers=bare).content


def test_a_raw_stream_has_the_events_in_order(sdk, script):
    """As its types spell them."""
    script.says("Hello you!")
    events = list(sdk.messages.create(**ask(stream=True)))
    kinds = [event.type for event in events]
    deltas = kinds.count("content_block_delta")
    assert kinds == [
        "message_start", "content_block_start", *["content_block_delta"] * deltas,
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert deltas > 1


def test_the_stream_helper_adds_up_to_the_message(sdk, script):
    """Thoughts, text and calls, with the events of its own making."""
    script.says(f"<think>\nhm\n</think>\n\nOne moment.\n\n{CALL}\n{CALL}")
    fields = ask(tools=[WEATHER])
    whole = sdk.messages.create(**fields)
    with sdk.messages.stream(**fields) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    assert {"thinking", "signature", "text", "input_json"} <= kinds
    ours = [block.to_dict() for block in whole.content]
    theirs = [block.to_dict() for block in final.content]
    for block in (*ours, *theirs):
        block.pop("id", None)
        block.pop("parsed_output", None)
    assert theirs == ours
    assert [block["type"] for block in ours] == ["thinking", "text", "tool_use", "tool_use"]
    assert final.usage.to_dict() == whole.usage.to_dict()
    assert final.stop_reason == whole.stop_reason == "tool_use"


def test_a_round_of_tools(sdk, script):
    """The answer goes back as it came, with the results; the model sees all of it."""
    script.says(f"<think>\nhm\n</think>\n\n{CALL}", "It is windy.")
    first = sdk.messages.create(**ask("Weather?", tools=[WEATHER]))
    call = first.content[-1]
    assert (call.name, call.input) == ("get_weather", {"q": "the sea"})
    turns = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "wind"}],
        },
    ]
    second = sdk.messages.create(model=MODEL, max_tokens=64, messages=turns, tools=[WEATHER])
    assert second.content[0].text == "It is windy."
    prompt = script.prompt()
    assert '{"name": "get_weather", "arguments": {"q": "the sea"}}' in prompt
    assert "<tool_response>\nwind\n</tool_response>" in prompt


def test_the_tool_runner_of_its_beta_client_runs(sdk, script):
    """A loop of the SDK's own: calls are made, run, answered, until the model is done."""
    asked = []

    @anthropic.beta_tool
    def get_weather(q: str) -> str:
        """The weather at a place."""
        asked.append(q)
        return "wind"

    script.says(CALL, "It is windy.")
    fields = ask("Weather?", tools=[get_weather])
    final = sdk.beta.messages.tool_runner(**fields).until_done()
    assert asked == ["the sea"]
    assert final.content[0].text == "It is windy."
    assert "<tool_response>\nwind\n</tool_response>" in script.prompt()


def test_a_stop_sequence_is_told(sdk, script):
    """Which one, streamed or not."""
    script.says("one two three")
    fields = ask(stop_sequences=["three", "two"])
    answer = sdk.messages.create(**fields)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "two")
    assert answer.content[0].text == "one "
    with sdk.messages.stream(**fields) as stream:
        assert stream.get_final_message().stop_sequence == "two"


def test_a_prefill_is_continued(sdk, script):
    """The prompt ends inside of the assistant's turn."""
    script.says(" Sol)")
    turns = [*ask()["messages"], {"role": "assistant", "content": "The answer is ("}]
    answer = sdk.messages.create(**ask(messages=turns))
    assert answer.content[0].text == " Sol)"
    assert script.prompt().endswith("The answer is (")


def test_tokens_are_counted(sdk, script):
    """As many as the same prompt is charged."""
    fields = ask(system="Be kind.", tools=[WEATHER])
    counted = sdk.messages.count_tokens(
        **{name: value for name, value in fields.items() if name != "max_tokens"}
    )
    script.says("x")
    usage = sdk.messages.create(**fields).usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_errors_are_typed(stage, sdk):
    """Each status is its own exception, with the type, the code and the request id."""
    with pytest.raises(anthropic.BadRequestError) as bad:
        sdk.messages.create(**ask(extra_body={"temperature": 9}))
    assert bad.value.body["error"]["type"] == "invalid_request_error"
    assert bad.value.body["error"]["details"]["param"] == "temperature"
    assert bad.value.request_id == bad.value.body["request_id"]
    with pytest.raises(anthropic.NotFoundError) as missing:
        sdk.messages.create(**{**ask(), "model": "claude-x"})
    assert missing.value.body["error"]["type"] == "not_found_error"
    with client(stage[0], api_key="wrong") as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            stranger.messages.create(**ask())
        with pytest.raises(anthropic.AuthenticationError):
            stranger.models.list()
    with pytest.raises(anthropic.BadRequestError) as long:
        sdk.messages.create(**ask("word " * 20_000, stream=True))
    assert long.value.body["error"]["details"]["error_code"] == "context_length_exceeded"
    with pytest.raises(anthropic.APIStatusError) as large:
        sdk.messages.create(**ask("x" * (3 << 20)))
    assert large.value.status_code == 413


def test_a_stream_that_fails_raises(sdk, script):
    """In the raw stream and in the helper, after what was said before."""
    script.says("Hello you", end="dies")
    said = []
    with pytest.raises(anthropic.APIStatusError) as failure:
        said.extend(sdk.messages.create(**ask(stream=True)))
    assert failure.value.body["error"]["type"] == "api_error"
    assert any(event.type == "content_block_delta" for event in said)
    with sdk.messages.stream(**ask()) as stream, pytest.raises(anthropic.APIStatusError):
        stream.get_final_message()


def test_a_failure_that_is_not_streamed_is_a_status(sdk, script):
    """500, which the SDK may retry as it is told."""
    script.says("Hello", end="dies")
    with pytest.raises(anthropic.InternalServerError):
        sdk.messages.create(**ask())


def test_the_async_client_does_it_all(stage, script):
    """Create, stream, count, parallel calls, errors."""
    script.says(f"Hello!\n\n{CALL}")

    async def main():
        base = stage[0].url.removesuffix("/v1")
        async with anthropic.AsyncAnthropic(base_url=base, api_key=KEY, max_retries=0) as sdk:
            whole = await sdk.messages.create(**ask(tools=[WEATHER]))
            async with sdk.messages.stream(**ask(tools=[WEATHER])) as stream:
                text = "".join([text async for text in stream.text_stream])
                final = await stream.get_final_message()
            assert text == whole.content[0].text == "Hello!"
            assert final.content[1].input == whole.content[1].input == {"q": "the sea"}
            answers = await asyncio.gather(*(sdk.messages.create(**ask()) for _ in range(20)))
            assert len({answer.id for answer in answers}) == 20
            counted = await sdk.messages.count_tokens(model=MODEL, messages=ask()["messages"])
            assert counted.input_tokens > 0
            with pytest.raises(anthropic.BadRequestError):
                await sdk.messages.create(**ask(max_tokens=-1))

    asyncio.run(main())


def test_models_are_listed_in_its_own_shape(sdk):
    """Because it says anthropic-version; the same route is OpenAI's for everyone else."""
    models = list(sdk.models.list())
    assert [model.id for model in models] == [MODEL]
    assert models[0].type == "model"
    assert models[0].created_at.year > 2000
    assert sdk.models.retrieve(MODEL) == models[0]
    with pytest.raises(anthropic.NotFoundError):
        sdk.models.retrieve("claude-x")


@pytest.fixture(scope="module")
def ledger():
    with live(test_settings(max_running=1, max_queued_requests=0)) as server:
        yield server


def test_closing_a_stream_aborts_it(ledger):
    """What a user's stop button does."""
    with client(ledger) as sdk:
        stream = sdk.messages.create(**ask(max_tokens=1500, stream=True))
        next(iter(stream))
        stream.close()
        eventually(ledger.quiet)


def test_comments_in_an_idle_stream_are_no_events():
    """They keep proxies from closing it, and the SDK passes over them."""
    with live(test_settings(sse_keepalive_s=0.05)) as server, client(server) as sdk:
        server.runner.may_step.clear()
        threading.Timer(0.4, server.runner.may_step.set).start()
        with sdk.messages.stream(**ask(max_tokens=5)) as stream:
            assert stream.get_final_message().usage.output_tokens == 5


def test_a_full_queue_is_a_rate_limit_and_is_retried_as_told(ledger):
    """RateLimitError at once, or an answer after the time that the header says."""
    ledger.runner.may_step.clear()
    with client(ledger) as sdk, client(ledger, max_retries=3) as patient:
        holder = threading.Thread(target=lambda: list(sdk.messages.create(**ask(stream=True))))
        holder.start()
        try:
            eventually(lambda: not ledger.quiet())
            with pytest.raises(anthropic.RateLimitError) as full:
                sdk.messages.create(**ask(max_tokens=2))
            assert float(full.value.response.headers["retry-after"]) >= 1
            threading.Timer(0.2, ledger.runner.may_step.set).start()
            began = time.monotonic()
            assert patient.messages.create(**ask(max_tokens=2)).content is not None
            assert 0.9 < time.monotonic() - began < 6
        finally:
            ledger.runner.may_step.set()
            holder.join(20)


def test_a_loading_server_is_waited_for():
    """503 with Retry-After: the SDK's own retries reach it."""
    runners = []

    def slow(*args):
        time.sleep(0.5)  # what loading is
        return ledger_opener(runners, *args)

    with (
        live(test_settings(), wait=False, opener=slow) as server,
        client(server, max_retries=5) as sdk,
    ):
        assert sdk.messages.create(**ask(max_tokens=2)).id


class Person(pydantic.BaseModel):
    """What the answer is to be."""

    name: str
    age: int


@pytest.fixture(scope="module")
def bundled():
    if not BUNDLED:
        pytest.skip("no bundled weights here")
    with live(test_settings(model_dir=None, max_running=8), opener=open_engine) as server:
        yield server


def test_the_bundled_model_answers(bundled):
    """A greeting, in a sentence of its own."""
    with client(bundled) as sdk:
        answer = sdk.messages.create(**ask("Hello!", max_tokens=100))
        assert answer.stop_reason == "end_turn"
        assert answer.content[0].text.strip()


def test_the_bundled_model_is_held_to_a_tool(bundled):
    """A forced call has arguments as its schema says; a free one is the model's own."""
    with client(bundled) as sdk:
        for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
            fields = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 200}
            answer = sdk.messages.create(**ask("Weather at the sea?", **fields))
            assert answer.stop_reason == "tool_use"
            assert set(answer.content[-1].input) == {"q"}


def test_the_bundled_model_is_held_to_a_type(bundled):
    """The helper makes the schema from it, and the object from the answer."""
    with (
        client(bundled) as sdk,
        sdk.messages.stream(**ask("Ann is 7.", max_tokens=200), output_format=Person) as stream,
    ):
        final = stream.get_final_message()
        parsed = sdk.messages.parse(**ask("Ann is 7.", max_tokens=200), output_format=Person)
    assert isinstance(parsed.parsed_output, Person)
    assert final.stop_reason == "end_turn"
    assert isinstance(final.content[0].parsed_output, Person)
