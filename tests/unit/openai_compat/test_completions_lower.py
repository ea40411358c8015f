"""A text completion to engine requests, by value."""

import json

import pytest

from engines.api import Finish, FinishReason, TokenEvent, TokenLogprobs
from tests.support.tokenizers import BOS, EOS, byte_level, sentencepiece, served_model

MODEL = served_model()


def ids(text):
    return tuple(MODEL.tokenizer.encode(text, special=False))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hello world", [ids("hello world")]),
        (["hello", " world"], [ids("hello"), ids(" world")]),
        ([5, 6, 7], [(5, 6, 7)]),
        ([[5, 6], [7]], [(5, 6), (7,)]),
    ],
)
def test_a_prompt_has_four_forms(complete, prompt, expected):
    """Text, texts, ids, lists of ids: one engine request per prompt, in order."""
    job = complete(prompt=prompt)
    assert [request.prompt for request in job.requests] == expected


def test_requests_of_one_call_have_their_own_names(complete):
    """A single prompt keeps the call's id; several are numbered."""
    assert [request.id for request in complete().requests] == ["abc123"]
    requests = complete(prompt=["a", "b"]).requests
    assert [request.id for request in requests] == ["abc123-0", "abc123-1"]
    assert complete().id == "cmpl-abc123"


def test_sixteen_tokens_unless_told(complete):
    """OpenAI's default for text completions."""
    assert complete().requests[0].sampling.max_tokens == 16
    assert complete(max_tokens=3).requests[0].sampling.max_tokens == 3


def test_the_servers_seed_differs_between_prompts_and_the_clients_does_not(complete):
    """Equal prompts get their own texts by chance, and the same text for the same seed."""
    seeds = [request.sampling.seed for request in complete(prompt=["a"] * 4).requests]
    assert len(set(seeds)) == 4
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    given = [request.sampling.seed for request in complete(prompt=["a"] * 4, seed=9).requests]
    assert given == [9] * 4


def test_texts_get_what_the_post_processor_adds_and_ids_do_not(complete):
    """BOS before a text, as transformers has it; token ids are taken as they are."""
    model = served_model(backend=byte_level(bos=True))
    bos = model.tokenizer.token_id(BOS)
    assert complete(model=model).requests[0].prompt[0] == bos
    assert complete(model=model, prompt=[5]).requests[0].prompt == (5,)


def test_logprobs_and_n_reach_the_engine(complete):
    """0 asks for the sampled token's own logprob only."""
    request = complete(logprobs=0, n=3).requests[0]
    assert (request.sampling.logprobs, request.n) == (0, 3)


@pytest.mark.parametrize("best_of", [1, 2, None])
def test_best_of_that_changes_nothing_is_accepted(complete, best_of):
    """1 or n."""
    assert complete(n=2, best_of=best_of).requests[0].n == 2


def test_an_echo_too_long_for_one_frame_is_refused_in_a_stream_alone(complete, refusal):
    """Making it would hold up every other stream."""
    model = served_model(max_context=30_000)
    fields = {"model": model, "prompt": [5] * 21_000, "echo": True, "logprobs": 0}
    reply = refusal(complete, stream=True, **fields)
    assert (reply.status, reply.param) == (400, "echo")
    assert complete(**fields).requests[0].sampling.prompt_logprobs == 0


def test_one_bad_prompt_of_many_is_named(complete, refusal):
    """Nothing of the call is started."""
    reply = refusal(complete, prompt=[[1], [2, 10**6]])
    assert reply.param == "prompt[1][1]"


def test_a_prompt_too_long_is_refused_with_the_figures(complete, refusal):
    """Text or ids alike."""
    for prompt in ([1] * 512, [[1], [1] * 600], "hello" * 600):
        reply = refusal(complete, prompt=prompt)
        assert reply.code == "context_length_exceeded"
        assert reply.param.startswith("prompt")
        assert "512" in reply.message


def test_of_equal_choices_the_first_is_best(complete):
    """So that an answer does not depend on how a sort breaks ties; no token at all is the worst."""
    job = complete(n=1, best_of=3)
    for choice, (logprob, text) in enumerate([(-3.0, "a"), (-1.0, "b"), (-1.0, "c")]):
        event = TokenEvent(choice, list(ids(text)), 0, [TokenLogprobs(logprob)])
        event.finish = Finish(FinishReason.LENGTH, 1)
        job.renderer.feed(0, event)
    assert json.loads(job.renderer.fold())["choices"][0]["text"] == "b"


def test_a_stop_token_counts_for_the_best(complete):
    """It is charged, so its likelihood is part of the mean."""
    job = complete(n=1, best_of=2, max_tokens=5)
    eos = MODEL.tokenizer.token_id(EOS)
    stop = Finish(FinishReason.STOP, 2, eos)
    for choice, logprob in enumerate((-9.0, -0.1)):
        told = [TokenLogprobs(-1.0), TokenLogprobs(logprob)]
        token = ids("ab"[choice])[0]
        job.renderer.feed(0, TokenEvent(choice, [token, eos], 0, told, stop))
    assert json.loads(job.renderer.fold())["choices"][0]["text"] == "b"


def test_a_text_goes_on_from_its_prompt(complete):
    """A sentencepiece continuation keeps its first space."""
    model = served_model(backend=sentencepiece(), stop_tokens=frozenset())
    job = complete(model=model, prompt="hello")
    choice = job.renderer._choices[0]
    tokens = model.tokenizer.encode("world", special=False)
    assert choice._detokenizer.feed(tokens) == " world"
