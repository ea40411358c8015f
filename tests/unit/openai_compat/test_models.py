"""The model list and finding models by name."""

import json
from dataclasses import replace

import pytest

from engines.api import Embeds
from openai_compat.chat.lower import lower_chat
from openai_compat.errors import NotFound, RequestRejected
from openai_compat.identity import fingerprint
from openai_compat.models import card_body, find, list_body, with_adapters
from openai_compat.options import requested_model
from tests.support.tokenizers import CALL, served_model

MODEL = served_model(name="org/tiny-1", aliases=("tiny", "gpt-4o"))
SERVED = {"org/tiny-1": MODEL}


@pytest.mark.parametrize("name", ["org/tiny-1", "tiny", "gpt-4o"])
def test_a_model_is_found_by_name_or_alias(name):
    """Names may hold slashes."""
    assert find(SERVED, name) is MODEL
    assert json.loads(card_body(SERVED, name))["id"] == name


@pytest.mark.parametrize("name", ["", "Tiny", "org", "secret" * 1000])
def test_an_unknown_model_is_not_found(name):
    """404 model_not_found naming the field, not the input."""
    with pytest.raises(NotFound) as caught:
        find(SERVED, name)
    reply = caught.value.reply
    assert (reply.status, reply.code, reply.param) == (404, "model_not_found", "model")
    assert "secret" not in reply.message


def test_the_list_has_every_name_once():
    """The model under its own name first, then its aliases; served twice is listed once."""
    body = json.loads(list_body([MODEL, MODEL]))
    assert body["object"] == "list"
    assert [card["id"] for card in body["data"]] == ["org/tiny-1", "tiny", "gpt-4o"]
    assert {card["max_model_len"] for card in body["data"]} == {512}


def test_adapters_are_models_beside_their_own():
    """With the same text side, for text alone; the answer's fingerprint tells them apart."""
    info = replace(MODEL.info, adapters=("poet", "clerk"), embeds=Embeds(8, normalised=True))
    base = replace(MODEL, info=info)
    served = with_adapters(base)
    assert list(served) == ["org/tiny-1", "poet", "clerk"]
    assert served["org/tiny-1"] is base
    poet = find(served, "poet")
    assert (poet.adapter, base.adapter, poet.base) == ("poet", "", "org/tiny-1")
    assert poet.tokenizer is base.tokenizer
    cards = {card["id"]: card for card in json.loads(list_body(served.values()))["data"]}
    assert list(cards) == ["org/tiny-1", "tiny", "gpt-4o", "poet", "clerk"]
    assert cards["poet"]["parent"] == cards["poet"]["root"] == "org/tiny-1"
    assert cards["poet"]["purposes"] == ["generate"]
    assert not {"parent", "root"} & cards["tiny"].keys()
    assert len({fingerprint(model) for model in served.values()}) == 3


def test_a_model_that_only_makes_vectors_has_no_adapters():
    """Nothing could ask for one."""
    info = replace(MODEL.info, adapters=("poet",), generates=False)
    assert list(with_adapters(replace(MODEL, info=info))) == ["org/tiny-1"]


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": 1}, {"model": ""}, {"model": []}])
def test_a_request_must_name_its_model(body):
    """400 naming the field."""
    with pytest.raises(RequestRejected) as caught:
        requested_model(body)
    assert caught.value.reply.param == "model"


def test_an_answer_speaks_of_the_model_by_the_name_the_client_used():
    """Clients compare."""
    messages = [{"role": "user", "content": "hello"}]
    job = lower_chat({"model": "gpt-4o", "messages": messages, "stream": True}, MODEL, CALL)
    assert b'"model":"gpt-4o"' in job.renderer.begin()


def test_the_fingerprint_is_of_the_model_not_of_the_call():
    """Equal for equal models, different when the context differs."""
    messages = [{"role": "user", "content": "hello"}]

    def told(model):
        job = lower_chat({"model": "tiny", "messages": messages, "stream": True}, model, CALL)
        return json.loads(job.renderer.begin()[6:])["system_fingerprint"]

    assert told(MODEL) == told(served_model())
    assert told(MODEL) != told(served_model(max_context=513))
