"""Drafts over HTTP: a server that guesses ahead answers just what one that does not answers."""

import json
import urllib.request

import pytest

from gateway.model_directory import read_text_side
from gateway.opening import open_engine
from tests.support.live import MODEL, TOKENIZER_DIR, live, test_settings

TEXT = "The gate opens, the river runs. The gate opens, the river runs. The gate"
CALLS = [
    {"temperature": 0},
    {"temperature": 0, "stop": [". river. the"]},
    {"temperature": 0.8, "seed": 4, "n": 3, "stop": ["the the the", "gate. the river"]},
    {"temperature": 0.7, "seed": 1, "stop": ["the gate"], "logprobs": 2},
    {"temperature": 1, "seed": 5, "top_p": 0.9, "logprobs": 1},
    {"temperature": 0, "frequency_penalty": 0.4},
    {"temperature": 0, "max_tokens": 3, "echo": True},
    {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}},
]


def _few() -> dict[str, int]:
    """A bias for a handful of tokens: what is said of them soon repeats."""
    encode = read_text_side(TOKENIZER_DIR).tokenizer.encode
    words = (" the", " gate", " river", " opens", ".")
    return {str(encode(word, special=False)[0]): 60 for word in words}


def answers(speculate: int) -> tuple[list[object], str]:
    """What each call gives, less its id and time; and the server's metrics."""
    few = _few()
    settings = test_settings(speculate=speculate, dtype="float32")
    with live(settings, opener=open_engine) as server:
        base = f"http://127.0.0.1:{server.port}"
        found = [
            _answer(
                f"{base}/v1/completions",
                {"max_tokens": 60, "prompt": TEXT, "logit_bias": few, **call},
            )
            for call in CALLS
        ]
        with urllib.request.urlopen(f"{base}/metrics", timeout=30) as response:
            return found, response.read().decode()


def _answer(url: str, body: dict[str, object]) -> object:
    request = urllib.request.Request(
        url, json.dumps({"model": MODEL, **body}).encode(),
        {"content-type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=120) as response:
        said = response.read().decode()
    if not body.get("stream"):
        answer = json.loads(said)
        return answer["choices"], answer["usage"]
    events = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: {")]
    text = "".join(choice["text"] for event in events for choice in event["choices"])
    return text, events[-1]["usage"]


@pytest.mark.timeout(300)
def test_a_server_that_guesses_answers_the_same():
    """Texts, scores, finish reasons and usage, with stop strings, choices, seeds and penalties."""
    want, without = answers(0)
    said, metrics = answers(7)
    assert said == want
    assert "penstock_drafted_tokens_total 0.0" in without
    drafted, accepted = (
        float(line.split()[1])
        for line in metrics.splitlines()
        if line.startswith(("penstock_drafted_tokens_total", "penstock_accepted_tokens_total"))
    )
    assert drafted >= accepted > 20
