"""Limits per key over HTTP: what clients are told, and what comes back when a call ends."""

import time

import httpx2
import openai
import pytest

from gateway.setting_kinds import Secret
from tests.support.live import chat, live, test_settings

CALLS, TOKENS, FREE = "sk-calls", "sk-tokens", "sk-free"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    file.write_text(
        f"""
keys:
  - {{name: calls, key: {CALLS}, max_concurrent: 2}}
  - {{name: tokens, key: {TOKENS}, tokens_per_minute: 600}}
"""
    )
    settings = test_settings(api_key=(Secret(FREE),), api_key_file=file)
    with live(settings, step_s=0.005) as server:
        yield server


def post(server, key, **body):
    headers = {"authorization": f"Bearer {key}"}
    body = {**chat("a question"), **body}
    return httpx2.post(f"{server.url}/chat/completions", json=body, headers=headers, timeout=30)


def limits(response):
    return {k.removeprefix("x-ratelimit-"): v for k, v in response.headers.items() if "limit-" in k}


def test_a_key_without_limits_is_told_of_none(server):
    """Nothing is counted for it."""
    assert limits(post(server, FREE, max_tokens=2)) == {}


def test_calls_in_flight_are_limited_per_key(server):
    """A third is refused while two run, also one that does not stream; another key goes on."""
    sdk = openai.OpenAI(base_url=server.url, api_key=CALLS, max_retries=0)
    asked = {"model": "ledger", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    streams = [sdk.chat.completions.create(**asked, max_tokens=400) for _ in range(2)]
    try:
        told = limits(streams[1].response)
        assert told == {
            "limit-requests": "2", "remaining-requests": "0", "reset-requests": "1s"
        }  # fmt: skip
        with pytest.raises(openai.RateLimitError, match="2 calls in flight") as refused:
            sdk.chat.completions.create(**asked, max_tokens=2)
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.response.headers["retry-after"] == "1"
        assert limits(refused.value.response)["remaining-requests"] == "0"
        assert post(server, FREE, max_tokens=2).status_code == 200
    finally:
        for stream in streams:
            stream.close()
    patient = openai.OpenAI(base_url=server.url, api_key=CALLS, max_retries=5)
    answer = patient.chat.completions.create(**{**asked, "stream": False}, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"


def test_tokens_are_reserved_and_given_back(server):
    """A call counts with all that it may say, until it has ended."""
    began = time.monotonic()
    first = post(server, TOKENS, max_tokens=300)
    said = first.json()["choices"][0]["message"]["content"]
    prompt = first.json()["usage"]["prompt_tokens"]
    left = 600 - prompt - 300  # all of it was said
    assert left_of(first) == left
    short = post(server, TOKENS, max_tokens=200, stop=[said[0]])
    refilled = 10 * (time.monotonic() - began) + 1
    left -= prompt + 200
    assert left <= left_of(short) <= left + refilled
    after = post(server, TOKENS, max_tokens=1)
    spent = short.json()["usage"]["total_tokens"]
    assert spent < prompt + 100
    assert left_of(after) >= left + (prompt + 200 - spent) - prompt - 1
    refused = post(server, TOKENS, max_tokens=590)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < float(refused.headers["retry-after-ms"]) / 1000 <= 60
    assert limits(refused)["limit-tokens"] == "600"


def left_of(response):
    return int(limits(response)["remaining-tokens"])


def test_a_response_in_the_background_counts_until_it_has_ended(server):
    """Though its request was answered long before."""
    sdk = openai.OpenAI(base_url=server.url, api_key=CALLS, max_retries=5)
    kept = [
        sdk.responses.create(model="ledger", input="hi", background=True, max_output_tokens=600)
        for _ in range(2)
    ]
    refused = post(server, CALLS, max_tokens=2)
    assert refused.status_code == 429
    assert limits(refused)["remaining-requests"] == "0"
    for each in kept:
        sdk.responses.cancel(each.id)
    assert post(server, CALLS, max_tokens=2).status_code == 200


def test_what_is_refused_costs_nothing(server):
    """A request that cannot be is not counted."""
    wrong = post(server, TOKENS, max_tokens=10**6)
    assert wrong.status_code == 400
    assert limits(wrong) == {}
