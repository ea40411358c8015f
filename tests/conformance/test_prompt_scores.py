"""Prompts are scored as transformers scores them: prompt_logprobs and echo, through the socket."""

import json

import httpx2
import numpy as np
import pytest
import torch
import transformers

from engines.bundled import penstock_tiny
from gateway.opening import open_engine
from tests.support.live import MODEL, live, test_settings

pytestmark = pytest.mark.skipif(
    not (penstock_tiny() / "model.safetensors").exists(), reason="no bundled weights here"
)
TEXT = "Water runs through the gate and turns the wheel, slowly at first, then fast: né 🦊! " * 3
NEAR = 2e-4


@pytest.fixture(scope="module")
def server():
    settings = test_settings(model_dir=None, max_running=8, max_step_tokens=64, dtype="float32")
    with live(settings, opener=open_engine) as server:
        yield server


@pytest.fixture(scope="module")
def truth():
    """The log-probabilities of every next token after each prefix of a prompt."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        penstock_tiny(), dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()

    def scores(tokens):
        with torch.inference_mode():
            logits = model(torch.tensor([tokens])).logits[0]
        return torch.log_softmax(logits.float(), -1).numpy()

    return scores


def ask(server, path, **fields):
    body = {"model": MODEL, "temperature": 0, "max_tokens": 4, **fields}
    response = httpx2.post(f"{server.url}{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response


def check(told, tokens, scores, top):
    """Each place but the first: the prompt's own token, and the likeliest ones with their ranks."""
    assert told[0] is None
    assert len(told) == len(tokens)
    for place, token in enumerate(tokens[1:]):
        entries, expected = told[place + 1], scores[place]
        assert entries[str(token)]["logprob"] == pytest.approx(expected[token], abs=NEAR)
        ranked = {int(key): entry for key, entry in entries.items() if entry["rank"]}
        assert sorted(entry["rank"] for entry in ranked.values()) == list(range(1, top + 1))
        likeliest = np.sort(expected)[::-1]
        for key, entry in ranked.items():
            assert entry["logprob"] == pytest.approx(expected[key], abs=NEAR)
            assert entry["logprob"] == pytest.approx(likeliest[entry["rank"] - 1], abs=NEAR)


def test_prompt_logprobs_of_a_chat(server, truth):
    """At the top of the answer, the same when the prompt is in the prefix cache."""
    messages = [{"role": "user", "content": TEXT}]
    for _ in range(2):
        answer = ask(
            server, "/chat/completions", messages=messages, prompt_logprobs=3, return_token_ids=True
        ).json()
        tokens = answer["prompt_token_ids"]
        assert len(tokens) > 64, "in several chunks"
        check(answer["prompt_logprobs"], tokens, truth(tokens), 3)


def test_prompt_logprobs_of_several_prompts(server, truth):
    """In each choice, of its own prompt."""
    prompts = [TEXT, "Hello", "What is 12 + 7?"]
    answer = ask(
        server, "/completions", prompt=prompts, n=2, prompt_logprobs=2, return_token_ids=True
    ).json()
    assert len(answer["choices"]) == 6
    for choice in answer["choices"]:
        tokens = choice["prompt_token_ids"]
        check(choice["prompt_logprobs"], tokens, truth(tokens), 2)


@pytest.mark.parametrize("max_tokens", [4, 0])
@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_with_logprobs(server, truth, max_tokens, stream):
    """One list over prompt and answer; with no tokens to generate, a score of the prompt alone."""
    fields = {"prompt": TEXT, "echo": True, "logprobs": 2, "max_tokens": max_tokens}
    response = ask(server, "/completions", stream=stream, return_token_ids=True, **fields)
    if stream:
        events = response.text.split("\n\n")[:-2]
        choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    else:
        choices = response.json()["choices"]
    told = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    numbers = [number for part in told for number in part["token_logprobs"]]
    offsets = [offset for part in told for offset in part["text_offset"]]
    text = "".join(choice["text"] for choice in choices)
    prompt = choices[0]["prompt_token_ids"]
    said = [token for choice in choices for token in choice["token_ids"]]
    assert len(said) == max_tokens
    assert text.startswith(TEXT)
    scores = truth(prompt + said)
    expected = [scores[place][token] for place, token in enumerate((prompt + said)[1:])]
    assert numbers[0] is None
    assert numbers[1:] == pytest.approx(expected, abs=NEAR)
    assert offsets == sorted(offsets)
    assert len(offsets) == len(numbers)
    names = [name for part in told for name in part["tokens"]]
    for name, offset in zip(names, offsets, strict=True):
        assert "\ufffd" in name or text[offset:].startswith(name)


def test_best_of_tells_the_likeliest(server):
    """By the mean over its tokens, among all that the same call generates."""
    fields = {"prompt": "What is", "temperature": 1, "seed": 3, "max_tokens": 8, "logprobs": 0}
    fields["ignore_eos"] = True
    every = ask(server, "/completions", n=8, **fields).json()
    best = ask(server, "/completions", best_of=8, n=2, **fields).json()

    def mean(choice):
        numbers = choice["logprobs"]["token_logprobs"]
        return sum(numbers) / len(numbers)

    ranked = sorted(every["choices"], key=mean, reverse=True)
    assert [choice["text"] for choice in best["choices"]] == [c["text"] for c in ranked[:2]]
    assert best["usage"]["completion_tokens"] == every["usage"]["completion_tokens"]
