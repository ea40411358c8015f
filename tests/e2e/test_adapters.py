"""LoRA adapters as models, and extras of one engine, over a socket and through OpenAI's SDK."""

import json
from dataclasses import replace

import httpx2
import openai
import pytest

from engines.errors import ModelRejected
from tests.support.live import MODEL, chat, live, test_settings
from tests.support.special_engine import ADAPTERS, ECHO, special_opener

PROMPT = "One two three four"


@pytest.fixture(scope="module")
def engines():
    """The engine of the server below, and before it nothing."""
    return []


@pytest.fixture(scope="module")
def server(engines):
    """A live server that takes extras."""
    settings = test_settings(engine_extras=True)
    with live(settings, opener=special_opener(engines)) as server:
        yield server


@pytest.fixture
def sdk(server):
    """OpenAI's own client."""
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(server):
    """For what the SDK has no words for."""
    with httpx2.Client(base_url=server.url.removesuffix("/v1"), timeout=20) as client:
        yield client


def said_by(sdk, model, **fields):
    """The text that a model makes of the prompt."""
    done = sdk.completions.create(
        model=model, prompt=PROMPT, max_tokens=12, temperature=0, **fields
    )
    assert done.model == model
    return done.choices[0].text


# -- adapters


def test_adapters_are_listed_as_models_with_their_parent(sdk):
    """Behind the model itself; a card by its name tells the same."""
    cards = {card.id: card for card in sdk.models.list()}
    assert list(cards) == [MODEL, *ADAPTERS]
    for name in ADAPTERS:
        card = sdk.models.retrieve(name)
        assert card == cards[name]
        assert (card.parent, card.root, card.purposes) == (MODEL, MODEL, ["generate"])
    assert not hasattr(cards[MODEL], "parent")
    assert "embed" in cards[MODEL].purposes


def test_clients_of_anthropic_find_adapters_as_well(http):
    """In the list that their dialect has."""
    listed = http.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()
    assert [card["id"] for card in listed["data"]] == [MODEL, *ADAPTERS]


def test_an_adapter_answers_as_itself_and_shares_no_prefix_with_its_model(sdk, engines):
    """The same prompt, three texts; each again is what it was."""
    names = [MODEL, *ADAPTERS]
    first = {name: said_by(sdk, name) for name in names}
    assert {name: said_by(sdk, name) for name in names} == first
    assert first[MODEL] != first["poet"]
    asked = [request.adapter for request in engines[0].heard[-6:]]
    assert asked == ["", *ADAPTERS, "", *ADAPTERS]


def test_every_generating_route_takes_an_adapter_by_its_name(sdk, http, engines):
    """Chat, text completions, Responses and Messages; streamed as well."""
    messages = [{"role": "user", "content": "Hi"}]
    whole = sdk.chat.completions.create(model="poet", messages=messages, max_tokens=4)
    assert whole.model == "poet"
    chunks = sdk.chat.completions.create(model="poet", messages=messages, max_tokens=4, stream=True)
    assert {chunk.model for chunk in chunks} == {"poet"}
    assert sdk.responses.create(model="poet", input="Hi", max_output_tokens=4).model == "poet"
    body = {"model": "poet", "messages": messages, "max_tokens": 4}
    assert http.post("/v1/messages", json=body).json()["model"] == "poet"
    assert said_by(sdk, "poet")
    assert [request.adapter for request in engines[0].heard[-5:]] == ["poet"] * 5


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("embeddings", {"input": "Hi"}, "model_does_not_embed"),
        ("rerank", {"query": "Hi", "documents": ["a"]}, "model_does_not_rank"),
    ],
)
def test_an_adapter_makes_no_vectors(http, path, body, code):
    """Its model does; the adapter would be ignored without saying so."""
    reply = http.post(f"/v1/{path}", json={"model": "poet", **body})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, code)
    assert http.post(f"/v1/{path}", json={"model": MODEL, **body}).status_code == 200


def test_an_adapter_may_not_have_the_name_of_its_model():
    """Nobody could tell which of the two a client means; neither by name nor by alias."""
    for names in (("poet",), (MODEL, "clerk")):
        settings = replace(test_settings(), served_model_name=names)
        with pytest.raises(ModelRejected, match="--served-model-name"):
            special_opener([])(settings, print, print)


def test_an_adapter_that_is_not_there_is_no_model(sdk):
    """404, as any other name."""
    with pytest.raises(openai.NotFoundError) as caught:
        said_by(sdk, "nobody")
    assert caught.value.code == "model_not_found"


def test_a_request_may_not_bring_its_own_adapter(sdk):
    """TensorRT-LLM's `lora_request` and SGLang's `lora_path` name files."""
    for field, value in {"lora_request": {"lora_path": "/x"}, "lora_path": "/x"}.items():
        with pytest.raises(openai.BadRequestError) as caught:
            said_by(sdk, MODEL, extra_body={field: value})
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", field)


# -- extras


def told(model, given):
    """What the engine answers."""
    return {ECHO: {"given": given, "adapter": "" if model == MODEL else model}}


@pytest.mark.parametrize("model", [MODEL, "poet"])
def test_an_extra_goes_through_to_the_engine_and_its_answer_comes_back(sdk, model):
    """On the choice of a whole answer; nobody on the way reads it."""
    given = {"deep": [1, {"a": None}], "text": "é\u0000"}
    body = {"engine_extras": {ECHO: given}}
    messages = [{"role": "user", "content": "Hi"}]
    whole = sdk.chat.completions.create(
        model=model, messages=messages, max_tokens=4, n=2, extra_body=body
    )
    assert [choice.engine_extras for choice in whole.choices] == [told(model, given)] * 2
    text = sdk.completions.create(model=model, prompt="Hi", max_tokens=4, extra_body=body)
    assert text.choices[0].engine_extras == told(model, given)


def test_in_a_stream_the_answer_comes_with_the_end_of_its_choice(sdk):
    """Once for each choice, on the chunk with the finish_reason."""
    asked = {
        "model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "n": 2,
        "temperature": 0, "extra_body": {"engine_extras": {ECHO: {"a": 1}}},
    }  # fmt: skip
    chunks = sdk.chat.completions.create(**asked, stream=True)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    ends = [choice for choice in choices if choice.finish_reason]
    assert {choice.index for choice in ends} == {0, 1}
    assert [choice.engine_extras for choice in ends] == [told(MODEL, {"a": 1})] * 2
    assert not any(hasattr(choice, "engine_extras") for choice in choices if choice not in ends)
    text = "".join(choice.delta.content or "" for choice in choices if choice.index == 0)
    assert text == sdk.chat.completions.create(**asked).choices[0].message.content


def test_an_extra_that_the_engine_does_not_know_is_refused_by_its_name(sdk):
    """Before anything runs."""
    with pytest.raises(openai.BadRequestError) as caught:
        said_by(sdk, MODEL, extra_body={"engine_extras": {"trtllm.retention": {}}})
    assert caught.value.param == "engine_extras.trtllm.retention"
    assert caught.value.code == "unsupported_by_engine"


def test_without_the_flag_no_extra_is_taken():
    """400 naming field and flag, on both routes; everything else goes on."""
    with live(opener=special_opener([])) as server:
        for path, body in (
            ("chat/completions", chat()),
            ("completions", {"model": MODEL, "prompt": "Hi", "max_tokens": 2}),
        ):
            url = f"{server.url}/{path}"
            refused = httpx2.post(url, json={**body, "engine_extras": {ECHO: {}}})
            error = json.loads(refused.text)["error"]
            assert (refused.status_code, error["param"]) == (400, "engine_extras")
            assert "--engine-extras" in error["message"]
            assert httpx2.post(url, json=body).status_code == 200
