"""The model list and finding models by name."""

import json

import pytest

from openai_compat.chat.lower import lower_chat
from openai_compat.errors import NotFound, RequestRejected
from openai_compat.models import card_body, find, list_body
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

    def fingerprint(model):
        job = lower_chat({"model": "tiny", "messages": messages, "stream": True}, model, CALL)
        return json.loads(job.renderer.begin()[6:])["system_fingerprint"]

    assert fingerprint(MODEL) == fingerprint(served_model())
    assert fingerprint(MODEL) != fingerprint(served_model(max_context=513))
