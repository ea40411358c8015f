"""Log-probabilities of prompts are those of transformers, whatever the scheduler does meanwhile."""

import asyncio

import pytest
import torch
from transformers import AutoModelForCausalLM

from engines.api import Capability, Sampling
from engines.torch import prompt_scores
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from tests.support.engines import ask, limits_for, read, running, stepped
from tests.support.plans import Driver, Run
from tests.support.tiny_models import VOCAB, by_name, model_dir, prompts

pytestmark = pytest.mark.anyio

TOP = 5
CAN = frozenset(Capability) - {Capability.GRAMMAR}


def truth(name, prompt):
    """Raw natural log-probabilities [tokens - 1, vocabulary] by transformers' eager attention."""
    model = AutoModelForCausalLM.from_pretrained(
        model_dir(by_name(name)), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)


def agree(found, expected, prompt, top=TOP):
    """Each entry is of the next prompt token, with its most likely rivals in order."""
    assert len(found) == len(prompt) - 1
    for entry, row, token in zip(found, expected, prompt[1:], strict=True):
        assert entry.logprob == pytest.approx(row[token].item(), abs=1e-4)
        assert [value for _, value in entry.top] == pytest.approx(
            row.topk(top).values.tolist(), abs=1e-4
        )
        assert all(value == pytest.approx(row[t].item(), abs=1e-4) for t, value in entry.top)


def runner_for(loaded, limits):
    return TorchRunner(
        loaded,
        num_blocks=limits.num_blocks,
        block_size=limits.block_size,
        max_lanes=limits.max_running,
    )


@pytest.mark.parametrize(
    "name", ["llama", "gemma2", "cohere", "granite", "mixtral", "gpt-oss", "phi3"]
)
@pytest.mark.parametrize("logits", [VOCAB * 3, 1 << 23], ids=["few-rows-at-once", "all-at-once"])
def test_prompt_scores_equal_transformers(name, logits, monkeypatch):
    """Scales and soft-caps of the head included, in odd chunks, beside other sequences."""
    monkeypatch.setattr(prompt_scores, "_LOGITS", logits)
    runner = TorchRunner(
        open_model(model_dir(by_name(name))), num_blocks=64, block_size=8, max_lanes=4
    )
    drive = Driver(runner, num_blocks=64, block_size=8)
    (prompt,) = prompts(1, longest=23)
    asking = drive.start(0, prompt, Sampling(9, temperature=0.0, prompt_logprobs=TOP))
    other = drive.start(1, prompt[:9])
    drive.step([Run(asking, 7), Run(other, 9)])
    drive.step([Run(asking, 2), Run(other, 1)])
    plan = drive.plan([Run(asking, asking.pending), Run(other, 1)])
    result = drive.runner.collect(drive.runner.launch(plan))
    assert list(result.prompt_logprobs) == [0]
    agree(result.prompt_logprobs[0], truth(name, prompt), prompt)


async def test_scores_survive_chunks_choices_and_preemption():
    """A tight pool and small steps: every choice of every request is told once, and exactly."""
    loaded = open_model(model_dir(by_name("llama")))
    limits = limits_for(vocab_size=VOCAB, num_blocks=24, tokens_per_step=14)
    engine = stepped(limits, lambda limits: runner_for(loaded, limits), CAN)
    starts = [start for start in prompts(8, longest=30, seed=3) if len(start) > 1]
    async with running(engine):
        streams = [
            engine.generate(ask(f"r{i}", start, n=1 + i % 2, max_tokens=24, prompt_logprobs=TOP))
            for i, start in enumerate(starts)
        ]
        answers = await asyncio.gather(*map(read, streams))
        assert engine.load().preemptions > 0
        assert engine.load().prefix_hit_tokens == 0
    for start, told in zip(starts, answers, strict=True):
        expected = truth("llama", start)
        for answer in told.values():
            agree(answer.prompt_logprobs, expected, start)


async def test_who_did_not_ask_is_not_told_and_a_prompt_of_one_token_has_no_entries():
    """None for no question, an empty list for nothing to say; 0 asks for no rivals."""
    loaded = open_model(model_dir(by_name("llama")))
    engine = stepped(limits_for(vocab_size=VOCAB), lambda limits: runner_for(loaded, limits), CAN)
    async with running(engine):
        silent = engine.generate(ask("silent", [5, 6, 7]))
        single = engine.generate(ask("single", [5], prompt_logprobs=3))
        bare = engine.generate(ask("bare", [5, 6, 7], prompt_logprobs=0))
        answers = [(await read(stream))[0] for stream in (silent, single, bare)]
    assert [answers[0].prompt_logprobs, answers[1].prompt_logprobs] == [None, []]
    assert [entry.top for entry in answers[2].prompt_logprobs] == [(), ()]
    assert not loaded.module.base_model._forward_hooks
