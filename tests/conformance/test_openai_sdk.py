"""The stock openai-python client against a live port: what it sends, parses and raises.

Every test runs on the ledger; those that need a model's capabilities run on the bundled one.
"""

import asyncio
from pathlib import Path

import openai
import pytest

from engines.bundled import penstock_tiny
from gateway.opening import open_engine
from gateway.setting_kinds import Secret
from tests.support.live import MODEL, chat, eventually, live, test_settings

KEY = "sk-test-key"
BUNDLED = (penstock_tiny() / "model.safetensors").exists()


def tiny_settings():
    """The bundled model as it is served by default, behind a key."""
    return test_settings(api_key=(Secret(KEY),), model_dir=None, max_running=8)


@pytest.fixture(
    scope="module",
    params=[
        "ledger",
        pytest.param(
            "torch", marks=pytest.mark.skipif(not BUNDLED, reason="no bundled weights here")
        ),
    ],
)
def server(request):
    """A live server over each engine."""
    opener = open_engine if request.param == "torch" else None
    with live(tiny_settings(), opener=opener) as server:
        yield server


@pytest.fixture(scope="module")
def torch_server():
    """A live server over the bundled model."""
    if not BUNDLED:
        pytest.skip("no bundled weights here")
    with live(tiny_settings(), opener=open_engine) as server:
        yield server


@pytest.fixture
def sdk(server):
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def torch_sdk(torch_server):
    with openai.OpenAI(base_url=torch_server.url, api_key=KEY, max_retries=0) as client:
        yield client


def run_async(server, scenario):
    async def main():
        async with openai.AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
            return await scenario(client)

    return asyncio.run(main())


def text_of(chunks, index=0):
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index
    )


def stop_within(sdk):
    """Two letters that the greedy answer holds, not at its start."""
    whole = sdk.chat.completions.create(**chat(max_tokens=30)).choices[0].message.content
    return next(whole[i : i + 2] for i in range(5, len(whole)) if whole[i : i + 2].isalpha())


def test_a_chat_completion_is_parsed(sdk):
    """Id, model, message, finish and usage are where the SDK's types want them."""
    answer = sdk.chat.completions.create(**chat(max_tokens=5))
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert isinstance(choice.message.content, str)
    assert choice.finish_reason in ("length", "stop")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0


def test_a_stream_equals_its_answer(sdk):
    """Role first and once, text, then the finish."""
    whole = sdk.chat.completions.create(**chat(max_tokens=12))
    chunks = list(sdk.chat.completions.create(**chat(max_tokens=12, stream=True)))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert text_of(chunks) == whole.choices[0].message.content
    finishes = [chunk.choices[0].finish_reason for chunk in chunks]
    assert finishes[-1] == whole.choices[0].finish_reason
    assert set(finishes[:-1]) == {None}
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_comes_last_when_asked_for(sdk):
    """In a chunk without choices, and only then."""
    options = {"include_usage": True}
    body = chat(max_tokens=3, stream=True, stream_options=options)
    *others, last = sdk.chat.completions.create(**body)
    assert last.choices == []
    assert last.usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in others)


def test_the_stream_helper_folds_a_stream(sdk):
    """`.stream()` is stricter than the raw stream about order and roles."""
    body = chat(max_tokens=30, n=2, stop=stop_within(sdk), stream_options={"include_usage": True})
    with sdk.chat.completions.stream(**body) as stream:
        final = stream.get_final_completion()
    assert [choice.index for choice in final.choices] == [0, 1]
    assert all(choice.message.role == "assistant" for choice in final.choices)
    assert {choice.finish_reason for choice in final.choices} == {"stop"}
    assert final.usage.completion_tokens >= 4


@pytest.mark.parametrize("stream", [False, True])
def test_two_choices_come_with_their_indices(sdk, stream):
    """Streaming or not."""
    answer = sdk.chat.completions.create(
        **chat(max_tokens=6, n=2, temperature=1, seed=7, stream=stream)
    )
    if stream:
        texts = [text_of(chunks := list(answer), 0), text_of(chunks, 1)]
        assert [chunk.choices[0].index for chunk in chunks[:2]] == [0, 1]
    else:
        texts = [choice.message.content for choice in answer.choices]
    assert len(texts) == 2
    again = sdk.chat.completions.create(**chat(max_tokens=6, n=2, temperature=1, seed=7))
    assert [choice.message.content for choice in again.choices] == texts


def test_a_stop_string_ends_the_text_before_it(sdk):
    """It is not part of the answer, and the rest is not computed."""
    whole = sdk.chat.completions.create(**chat(max_tokens=30)).choices[0].message.content
    stop = stop_within(sdk)
    for stream in (False, True):
        answer = sdk.chat.completions.create(**chat(max_tokens=30, stop=stop, stream=stream))
        if stream:
            chunks = list(answer)
            text, reason = text_of(chunks), chunks[-1].choices[0].finish_reason
        else:
            text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert text == whole[: whole.index(stop)]
        assert reason == "stop"


def test_text_completions_are_parsed(sdk):
    """One prompt, several prompts, echo and token ids."""
    answer = sdk.completions.create(model=MODEL, prompt="Once", max_tokens=4, temperature=0)
    assert answer.object == "text_completion"
    assert answer.usage.completion_tokens <= 4
    several = sdk.completions.create(
        model=MODEL, prompt=["Once", "upon a"], max_tokens=4, temperature=0, echo=True
    )
    assert [choice.index for choice in several.choices] == [0, 1]
    assert several.choices[0].text == "Once" + answer.choices[0].text
    assert several.choices[1].text.startswith("upon a")
    ids = sdk.completions.create(model=MODEL, prompt=[5, 6, 7], max_tokens=2)
    assert ids.usage.prompt_tokens == 3


def test_text_completions_stream(sdk):
    """Several prompts at once, each under its index."""
    whole = sdk.completions.create(model=MODEL, prompt=["a", "b"], max_tokens=8, temperature=0)
    texts = {0: "", 1: ""}
    for chunk in sdk.completions.create(
        model=MODEL, prompt=["a", "b"], max_tokens=8, temperature=0, stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert list(texts.values()) == [choice.text for choice in whole.choices]


def test_models_are_listed_and_retrieved(sdk):
    """Both routes, the same card."""
    models = sdk.models.list().data
    assert [model.id for model in models] == [MODEL]
    card = sdk.models.retrieve(MODEL)
    assert card == models[0]
    assert card.owned_by
    assert card.created > 1_600_000_000


def test_the_request_id_is_on_answers_and_errors(sdk):
    """The SDK shows it as `_request_id`."""
    assert sdk.chat.completions.create(**chat(max_tokens=1))._request_id
    with pytest.raises(openai.BadRequestError) as refusal:
        sdk.chat.completions.create(**chat(temperature=9))
    assert refusal.value.request_id


def test_the_async_client_does_it_all(server):
    """Create, stream, parallel calls, errors, models."""

    async def scenario(client):
        whole = await client.chat.completions.create(**chat(max_tokens=10))
        stream = await client.chat.completions.create(**chat(max_tokens=10, stream=True))
        chunks = [chunk async for chunk in stream]
        assert text_of(chunks) == whole.choices[0].message.content
        bodies = [chat(str(number), max_tokens=10) for number in range(20)]
        calls = [client.chat.completions.create(**body) for body in bodies]
        answers = await asyncio.gather(*calls)
        assert len({answer.id for answer in answers}) == 20
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(**chat(n=-1))
        assert [model.id async for model in client.models.list()] == [MODEL]

    run_async(server, scenario)


def test_closing_a_stream_aborts_it(server):
    """What a user's stop button does."""
    with openai.OpenAI(base_url=server.url, api_key=KEY) as client:
        body = chat(max_tokens=500, stream=True, extra_body={"ignore_eos": True})
        stream = client.chat.completions.create(**body)
        next(stream)
        stream.close()
        eventually(server.quiet)


def test_a_whole_conversation_reuses_its_prefix(sdk):
    """The second turn finds the first one's blocks, and says so."""
    messages = [{"role": "user", "content": "tell me something " * 5}]
    body = {"model": MODEL, "max_tokens": 12, "temperature": 0}
    first = sdk.chat.completions.create(messages=messages, **body)
    messages += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "go on"},
    ]
    second = sdk.chat.completions.create(messages=messages, **body)
    assert second.usage.prompt_tokens_details.cached_tokens > 0


def test_logprobs_are_parsed(torch_sdk):
    """Chosen tokens, alternatives and bytes, streaming or not."""
    body = chat(max_tokens=5, logprobs=True, top_logprobs=3)
    entries = torch_sdk.chat.completions.create(**body).choices[0].logprobs.content
    streamed = [
        entry
        for chunk in torch_sdk.chat.completions.create(**body, stream=True)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content or ()
    ]
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]
    for entry in entries:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob, abs=1e-4)
        assert bytes(entry.bytes).decode(errors="replace") == entry.token
    legacy = torch_sdk.completions.create(
        model=MODEL, prompt="Once", max_tokens=3, temperature=0, logprobs=2
    )
    assert len(legacy.choices[0].logprobs.token_logprobs) <= 3


def test_sampling_fields_are_taken(torch_sdk):
    """Every field that shapes tokens, together."""
    answer = torch_sdk.chat.completions.create(
        **{**chat(max_tokens=8), "temperature": 0.8},
        top_p=0.9, seed=3, presence_penalty=0.5, frequency_penalty=0.5, logit_bias={"5": -100},
        extra_body={"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1},
    )  # fmt: skip
    assert answer.choices[0].message.content is not None


def test_the_bundled_model_stops_by_itself(torch_sdk):
    """A greeting is answered in a sentence, not to the length limit."""
    answer = torch_sdk.chat.completions.create(**chat("Hello!", max_tokens=200))
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content.strip()


def test_the_package_ships_the_model_it_serves():
    """The bundled directory lies inside a package, so a wheel carries it."""
    assert (penstock_tiny() / "tokenizer.json").is_file()
    assert Path(penstock_tiny()).is_relative_to(Path(__file__).parents[2] / "engines")
