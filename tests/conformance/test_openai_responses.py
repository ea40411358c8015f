"""The stock openai-python client and /v1/responses on a live port: all of its methods."""

import asyncio
import logging

import openai
import pydantic
import pytest

from gateway.setting_kinds import Secret
from tests.support.live import MODEL, Raw, eventually, live, test_settings
from tests.support.messages import events_of
from tests.support.responses import CALLED
from tests.support.scripted import scripted

KEY, OTHER = "sk-test-key", "sk-other-key"
ENDS = {"response.completed", "response.incomplete"}


@pytest.fixture(scope="module")
def server():
    keys = (Secret(KEY), Secret(OTHER))
    with live(test_settings(api_key=keys)) as server:
        yield server


@pytest.fixture
def sdk(server):
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def other(server):
    with openai.OpenAI(base_url=server.url, api_key=OTHER, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def stage():
    with scripted(test_settings()) as (server, script):
        yield server, script


@pytest.fixture
def talker(stage):
    with openai.OpenAI(base_url=stage[0].url, api_key="x", max_retries=0) as client:
        yield client


@pytest.fixture
def script(stage):
    return stage[1]


class Weather(pydantic.BaseModel):
    """The weather at a place."""

    q: str


@pytest.fixture
def held(server):
    """The engine stands still while the block runs, unless it lets it go."""
    server.runner.may_step.clear()
    yield server.runner.may_step
    server.runner.may_step.set()


def ask(**fields):
    return {"model": MODEL, "input": "Hello there", "max_output_tokens": 8, **fields}


def create(sdk, **fields):
    return sdk.responses.create(**ask(temperature=0, **fields))


def ended(sdk, response_id):
    def found():
        now = sdk.responses.retrieve(response_id)
        return None if now.status in ("queued", "in_progress") else now

    return eventually(found)


def code_of(work):
    with pytest.raises(openai.APIStatusError) as caught:
        work()
    return caught.value.status_code, caught.value.code, caught.value.param


def test_a_response_is_parsed_and_kept(sdk):
    """Id, status, text, usage; fetched again it is the same."""
    made = create(sdk)
    assert made.id.startswith("resp_")
    assert made.status == "incomplete"
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.output_text
    assert made.usage.output_tokens == 8
    assert sdk.responses.retrieve(made.id) == made


def test_a_stream_ends_with_the_same_response(sdk):
    """Raw events: dense numbers, deltas that add up, the terminal one last and no [DONE]."""
    plain = create(sdk)
    events = list(create(sdk, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == plain.output_text == events[-1].response.output_text
    assert events[-1].type == "response.incomplete"
    assert sdk.responses.retrieve(events[-1].response.id).output_text == text


def test_the_wire_of_a_stream(server):
    """Event names, a clean end of the body after the terminal event, and no [DONE]."""
    with Raw(server.port) as raw:
        raw.send("POST", "/v1/responses", ask(stream=True), [f"authorization: Bearer {KEY}"])
        head, _, rest = raw.read_until(b"\r\n0\r\n\r\n").partition(b"\r\n\r\n")
    assert b"content-type: text/event-stream" in head
    assert b"[DONE]" not in rest
    assert rest.count(b"event: response.") == rest.count(b'data: {"type":"response.')
    assert rest.rstrip().endswith(b"0")


def test_the_stream_helper(talker, script):
    """It checks order and identity of items by itself, and gives the final response."""
    script.says("<think>hm</think>Hello!")
    with talker.responses.stream(**ask()) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output_text == "Hello!"
    kept = talker.responses.retrieve(final.id)
    assert [item.id for item in kept.output] == [item.id for item in final.output]
    assert kept.output_text == "Hello!"


def test_a_round_of_a_tool(talker, script):
    """The helper reads the arguments; the output goes back by id alone, and so does the rest."""
    tool = openai.pydantic_function_tool(Weather, name="get_weather")
    script.says(f"<think>wet?</think>{CALLED}")
    with talker.responses.stream(**ask(tools=[tool])) as stream:
        first = stream.get_final_response()
    call = first.output[1]
    assert call.parsed_arguments == Weather(q="the sea")
    script.says("It is wet.")
    second = talker.responses.create(
        **ask(
            previous_response_id=first.id,
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "wet"}],
        )
    )
    assert second.output_text == "It is wet."
    prompt = script.prompt()
    assert "get_weather" in prompt
    assert "wet" in prompt


def test_parse_reads_an_answer(talker, script):
    """The helper for structured output: its schema becomes a grammar, its text an object."""
    script.says('{"q": "the sea"}')
    parsed = talker.responses.parse(**ask(text_format=Weather))
    assert parsed.output_parsed == Weather(q="the sea")
    assert script.requests[-1].sampling.grammar
    with talker.responses.stream(**ask(text_format=Weather)) as stream:
        assert stream.get_final_response().output_parsed == Weather(q="the sea")


def test_the_helper_does_not_take_a_death_for_an_answer(talker, script):
    """It raises, streamed or not."""
    script.says("Hello!", end="dies")
    with pytest.raises(openai.APIError) as caught, talker.responses.stream(**ask()) as stream:
        stream.get_final_response()
    assert caught.value.code == "engine_died"
    assert code_of(lambda: talker.responses.create(**ask())) == (500, "engine_died", None)


def test_a_conversation_goes_on(sdk):
    """With the whole conversation as its prompt, and listed as its input."""
    first = create(sdk)
    second = create(sdk, input="and then?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens
    assert second.usage.input_tokens_details.cached_tokens > 0
    items = list(sdk.responses.input_items.list(second.id, order="asc", limit=1))
    assert [item.type for item in items] == ["message"] * 3
    assert [item.role for item in items] == ["user", "assistant", "user"]
    assert items[1].content[0].text == first.output_text
    by_items = create(sdk, input=[*({"id": item.id, "type": "item_reference"} for item in items)])
    assert by_items.usage.input_tokens == second.usage.input_tokens


def test_a_deleted_response_is_gone(sdk):
    """To fetch, to continue, to list, to cancel, to delete again."""
    made = create(sdk)
    assert sdk.responses.delete(made.id) is None
    gone = (404, "response_not_found", "response_id")
    assert code_of(lambda: sdk.responses.retrieve(made.id)) == gone
    assert code_of(lambda: sdk.responses.delete(made.id)) == gone
    assert code_of(lambda: sdk.responses.cancel(made.id)) == gone
    assert code_of(lambda: sdk.responses.input_items.list(made.id)) == gone
    assert code_of(lambda: create(sdk, previous_response_id=made.id)) == (
        404, "previous_response_not_found", "previous_response_id"
    )  # fmt: skip


def test_what_is_not_stored_is_not_there(sdk):
    """store=false."""
    made = create(sdk, store=False)
    assert code_of(lambda: sdk.responses.retrieve(made.id))[0] == 404


def test_a_response_belongs_to_its_key(sdk, other):
    """For every other one it is not there, whatever is done with it."""
    made = create(sdk)
    live_one = create(sdk, background=True, max_output_tokens=500)
    for each in (made, live_one):
        for act in (other.responses.retrieve, other.responses.delete, other.responses.cancel):
            assert code_of(lambda: act(each.id))[0] == 404  # noqa: B023
        assert code_of(lambda: other.responses.input_items.list(each.id))[0] == 404  # noqa: B023
        assert code_of(lambda: create(other, previous_response_id=each.id))[0] == 404  # noqa: B023
    item = [{"type": "item_reference", "id": made.output[0].id}]
    assert code_of(lambda: create(other, input=item))[:2] == (404, "item_not_found")
    assert ended(sdk, live_one.id).status == "incomplete"


def test_the_background_goes_on_by_itself(sdk, held):
    """Queued, in progress, then whole; the connection that asked is long gone."""
    made = create(sdk, background=True)
    assert (made.status, made.output) == ("queued", [])
    assert sdk.responses.retrieve(made.id).status == "queued"
    held.set()
    final = ended(sdk, made.id)
    assert final.status == "incomplete"
    assert final.output_text == create(sdk).output_text


def test_a_stream_of_the_background_survives_its_client(sdk):
    """Cut after some events it is taken up where it was, as often as one likes."""
    stream = create(sdk, background=True, stream=True, max_output_tokens=60)
    first = [next(stream) for _ in range(7)]
    stream.close()
    name = first[0].response.id
    assert [event.type for event in first[:3]] == [
        "response.created", "response.queued", "response.in_progress"
    ]  # fmt: skip
    rest = list(sdk.responses.retrieve(name, stream=True, starting_after=6))
    assert [event.sequence_number for event in first + rest] == list(range(len(first + rest)))
    assert rest[-1].type in ENDS
    text = "".join(e.delta for e in first + rest if e.type == "response.output_text.delta")
    assert text == sdk.responses.retrieve(name).output_text


def test_a_replay_from_any_event_is_the_rest(server, sdk):
    """Byte by byte, live or long after."""
    made = create(sdk, background=True, stream=True)
    for event in made:
        name = getattr(event, "response", None) or made
    name = event.response.id
    get = sdk.with_options(default_headers={"accept": "text/event-stream"}).get

    def replay(query):
        return get(f"/responses/{name}?stream=true{query}", cast_to=str)

    whole = replay("")
    events = whole.split("\n\n")[:-1]
    assert len(events_of(whole.encode())) == len(events)
    for place in range(len(events)):
        assert replay(f"&starting_after={place}") == "".join(
            event + "\n\n" for event in events[place + 1 :]
        )
    assert code_of(lambda: replay(f"&starting_after={len(events)}")) == (
        400, "invalid_value", "starting_after"
    )  # fmt: skip


def test_an_event_that_never_comes_is_the_clients_error_and_no_fault(sdk, held, caplog):
    """Told in the stream when the response ends short of it; the log of faults is for ours."""
    made = create(sdk, background=True, max_output_tokens=5)
    late = sdk.responses.retrieve(made.id, stream=True, starting_after=5000)
    held.set()
    with pytest.raises(openai.APIError, match="starting_after"):
        list(late)
    assert ended(sdk, made.id).status == "incomplete"
    assert "fault" not in [record.message for record in caplog.records]


def test_the_stream_helper_takes_a_response_up(sdk):
    """`responses.stream(response_id=..., starting_after=N)`."""
    made = create(sdk, background=True, max_output_tokens=12)
    with sdk.responses.stream(response_id=made.id, starting_after=3) as stream:
        events = list(stream)
    assert events[0].sequence_number == 4
    assert events[-1].type == "response.incomplete"


def test_only_the_background_is_streamed_again_or_cancelled(sdk):
    """As at OpenAI; the refusal says so."""
    made = create(sdk)
    again = code_of(lambda: sdk.responses.retrieve(made.id, stream=True))
    assert again == (400, "response_not_streamable", "stream")
    cancel = code_of(lambda: sdk.responses.cancel(made.id))
    assert cancel == (400, "response_not_cancellable", "response_id")


def test_cancel_frees_the_engine_within_a_step(server, sdk):
    """Blocks and place are back when the call returns; cancelled again it stays as it is."""
    made = create(sdk, background=True, max_output_tokens=1500)
    eventually(lambda: sdk.responses.retrieve(made.id).output_text)
    cancelled = sdk.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert cancelled.output[-1].status == "incomplete"
    eventually(server.quiet, within_s=1)
    assert server.load().blocks_used == 0
    assert sdk.responses.cancel(made.id) == cancelled
    assert code_of(lambda: create(sdk, previous_response_id=made.id))[1] == (
        "previous_response_not_usable"
    )


def test_a_response_that_has_ended_is_cancelled_in_vain(sdk):
    """It comes back as it is."""
    made = ended(sdk, create(sdk, background=True).id)
    assert sdk.responses.cancel(made.id) == made


def test_who_follows_a_cancelled_response_is_told(sdk, held):
    """By an error, which the client raises: there is no event of cancelling."""
    stream = create(sdk, background=True, stream=True)
    name = next(stream).response.id
    sdk.responses.cancel(name)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "response_cancelled"


def test_a_live_response_is_deleted(server, sdk):
    """It is cancelled first; who follows it is told."""
    made = create(sdk, background=True, max_output_tokens=1500)
    sdk.responses.delete(made.id)
    assert code_of(lambda: sdk.responses.retrieve(made.id))[0] == 404
    eventually(server.quiet, within_s=1)


def test_a_foreground_stream_without_its_client_is_cancelled(server, sdk):
    """And is kept as such, never as complete."""
    stream = create(sdk, stream=True, max_output_tokens=1500)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
        if event.type == "response.created":
            name = event.response.id
    stream.close()
    eventually(server.quiet)
    final = ended(sdk, name)
    assert final.status == "cancelled"
    assert final.output[0].status == "incomplete"


def test_a_stream_that_is_deleted_meanwhile_stays_deleted(server, sdk):
    """Its end does not bring it back."""
    stream = create(sdk, stream=True, max_output_tokens=300)
    name = next(stream).response.id
    assert sdk.responses.retrieve(name).status == "in_progress"
    sdk.responses.delete(name)
    assert [event.type for event in stream][-1] == "response.incomplete"
    assert code_of(lambda: sdk.responses.retrieve(name))[0] == 404


def test_a_stream_that_fails_is_kept_as_failed(talker, script):
    """Before its client is told."""
    script.says("Hello!", end="dies")
    stream = talker.responses.create(**ask(stream=True))
    told = []
    with pytest.raises(openai.APIError):
        told.extend(
            talker.responses.retrieve(event.response.id).status
            for event in stream
            if event.type == "response.failed"
        )
    assert told == ["failed"]


def test_unknown_fields_are_named_in_a_header(sdk):
    """However the answer comes."""
    for fields in ({}, {"stream": True}, {"background": True}):
        raw = sdk.responses.with_raw_response.create(**ask(**fields, extra_body={"odd": 1}))
        assert raw.headers["x-ignored-params"] == "odd"
        raw.http_response.close()


def test_the_input_is_counted(sdk):
    """As the same request would be."""
    made = create(sdk, instructions="be brief")
    counted = sdk.responses.input_tokens.count(
        model=MODEL, input="Hello there", instructions="be brief"
    )
    assert counted.input_tokens == made.usage.input_tokens
    assert code_of(lambda: sdk.responses.input_tokens.count(model=MODEL, input=[]))[2] == "input"


def test_the_async_client(server):
    """Create, stream, helper, fetch, follow, list, cancel, delete."""

    async def scenario():
        async with openai.AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0) as sdk:
            made = await sdk.responses.create(**ask())
            assert (await sdk.responses.retrieve(made.id)).output_text == made.output_text
            events = [e async for e in await sdk.responses.create(**ask(stream=True))]
            assert events[-1].type in ENDS
            async with sdk.responses.stream(**ask()) as stream:
                kinds = [event.type async for event in stream]
            assert kinds[-1] == "response.incomplete"
            back = await sdk.responses.create(**ask(background=True))
            again = await sdk.responses.retrieve(back.id, stream=True, starting_after=2)
            numbers = [event.sequence_number async for event in again]
            assert numbers[0] == 3
            page = await sdk.responses.input_items.list(back.id)
            assert page.data[0].content[0].text == "Hello there"
            await sdk.responses.cancel(back.id)
            await sdk.responses.delete(back.id)

    asyncio.run(scenario())


def test_the_death_of_the_engine_fails_responses():
    """Foreground: the client raises. Background: who follows is told before the server ends."""
    with live() as server, openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as sdk:
        foreground = create(sdk, stream=True, max_output_tokens=1500)
        background = create(sdk, stream=True, background=True, max_output_tokens=1500)
        for stream in (foreground, background):
            while next(stream).type != "response.output_text.delta":
                pass
        server.runner.broken.set()
        for stream in (foreground, background):
            kinds = []
            with pytest.raises(openai.APIError) as caught:
                kinds.extend(event.type for event in _seen(stream, kinds))
            assert caught.value.code == "engine_died"
            assert kinds[-1] == "response.failed"


def _seen(stream, kinds):
    for event in stream:
        kinds.append(event.type)
        yield event


def test_a_drain_waits_for_the_background():
    """It ends like any call; nothing new begins."""
    with (
        live(step_s=0.01) as server,
        openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as sdk,
    ):
        stream = create(sdk, stream=True, background=True, max_output_tokens=40)
        next(stream)
        server.begin_exit()
        events = list(stream)
        assert events[-1].type == "response.incomplete"
    assert server.exit_code == 0


def test_a_drain_that_runs_out_of_time_fails_the_background():
    """Who follows is told."""
    with (
        live(test_settings(drain_timeout_s=0.2), step_s=0.02) as server,
        openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as sdk,
    ):
        stream = create(sdk, stream=True, background=True, max_output_tokens=1500)
        next(stream)
        server.begin_exit()
        kinds = []
        with pytest.raises(openai.APIError):
            kinds.extend(event.type for event in _seen(stream, kinds))
        assert kinds[-1] == "response.failed"


def test_a_store_full_of_live_responses_refuses_more():
    """429 with Retry-After; the conversation before is gone to make room, and says so."""
    settings = test_settings(response_store_bytes=24_000)
    with (
        live(settings) as server,
        openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as sdk,
    ):
        old, *_ = [create(sdk) for _ in range(6)]
        server.runner.may_step.clear()
        with pytest.raises(openai.RateLimitError) as caught:
            [create(sdk, background=True) for _ in range(20)]
        assert "--response-store-bytes" in caught.value.message
        assert float(caught.value.response.headers["retry-after"]) > 0
        assert code_of(lambda: sdk.responses.retrieve(old.id))[0] == 404
        server.runner.may_step.set()
        gone = code_of(lambda: create(sdk, previous_response_id=old.id))
        assert gone == (404, "previous_response_not_found", "previous_response_id")
        eventually(server.quiet)


def test_a_response_that_outgrows_the_store_fails_and_says_so():
    """It is bounded by what there is, not by what it wants."""
    settings = test_settings(response_store_bytes=12_000)
    with (
        live(settings) as server,
        openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as sdk,
    ):
        made = ended(sdk, create(sdk, background=True, max_output_tokens=200).id)
        assert made.status == "failed"
        assert made.error.code == "rate_limit_exceeded"
        assert "--response-store-bytes" in made.error.message
        with pytest.raises(openai.BadRequestError):
            sdk.responses.retrieve(made.id, stream=True)
        eventually(server.quiet)


def test_without_a_store_responses_are_answered_and_not_kept():
    """--response-store-bytes 0."""
    with (
        live(test_settings(response_store_bytes=0)) as server,
        openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as sdk,
    ):
        made = create(sdk)
        assert code_of(lambda: sdk.responses.retrieve(made.id))[0] == 404
        assert code_of(lambda: create(sdk, store=True))[2] == "store"


def test_what_is_stored_is_in_the_metrics(server, sdk):
    """The count, and the bytes of --response-store-bytes."""
    eventually(server.quiet)

    def gauges():
        lines = sdk.with_options(base_url=str(sdk.base_url).removesuffix("v1/")).get(
            "/metrics", cast_to=str
        )
        found = dict(
            line.split() for line in lines.splitlines() if line.startswith("penstock_stor")
        )
        return {name: float(value) for name, value in found.items()}

    before = gauges()
    made = create(sdk)
    after = gauges()
    assert after["penstock_stored_responses"] == before["penstock_stored_responses"] + 1
    assert after["penstock_stored_response_bytes"] > before["penstock_stored_response_bytes"] + 1024
    sdk.responses.delete(made.id)
    assert gauges() == before


def test_a_run_in_the_background_has_its_line_in_the_log(server, sdk, caplog):
    """With its tokens, under its own route; no text of prompt or answer is in any line."""
    with caplog.at_level(logging.INFO, "penstock.requests"):
        made = ended(sdk, create(sdk, background=True, input="a secret prompt").id)
        facts = eventually(
            lambda: [
                record.facts
                for record in caplog.records
                if getattr(record, "facts", {}).get("route") == "/v1/responses (background)"
            ]
        )
    assert facts[0]["completion_tokens"] == 8
    assert facts[0]["outcome"] == "answered"
    assert made.id == f"resp_{facts[0]['call_id']}"
    assert "secret" not in caplog.text
