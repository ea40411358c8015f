"""Two API keys: neither can tell what the other has sent."""

import httpx2
import pytest

from gateway.setting_kinds import Secret
from tests.support.live import chat, live, test_settings

KEYS = ("sk-first", "sk-second")


@pytest.fixture(scope="module")
def server():
    with live(test_settings(api_key=tuple(map(Secret, KEYS)))) as server:
        yield server


def usage(server, key, text):
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx2.post(f"{server.url}/chat/completions", json=chat(text), headers=headers)
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_prefixes_are_shared_within_a_key_only(server):
    """The same prompt is a hit for its own key, and unknown to the other."""
    prompt = "a long shared prompt " * 20
    first, second = KEYS
    assert usage(server, first, prompt) == 0
    assert usage(server, first, prompt) > 0
    assert usage(server, second, prompt) == 0
    assert usage(server, second, prompt) > 0


def test_answers_do_not_depend_on_the_key(server):
    """Only what is remembered is kept apart."""
    texts = [
        httpx2.post(
            f"{server.url}/chat/completions",
            json=chat("same question"),
            headers={"authorization": f"Bearer {key}"},
        ).json()["choices"][0]["message"]["content"]
        for key in KEYS
    ]
    assert texts[0] == texts[1]
