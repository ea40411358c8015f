"""What a model can be told of thinking, and what its answer tells of it."""

import pytest

from openai_compat.conversation.ask import Thinking
from openai_compat.conversation.thinking import thinking_budget, thinking_variables
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.registry import reasoning_syntaxes
from tests.support.fields import THINKER, choice, lower, prompt
from tests.support.tokenizers import CHATML, sentencepiece, served_model

EFFORT_ONLY = served_model(template=CHATML + "{{ reasoning_effort }}")
OPENED = served_model(
    template=CHATML + "{% if add_generation_prompt %}<think>\n{% endif %}",
    syntax=ModelSyntax(reasoning_syntaxes()["think"]),
)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        (Thinking(), {}),
        (Thinking(effort="high"), {"reasoning_effort": "high", "enable_thinking": True}),
        (Thinking(effort="none"), {"reasoning_effort": "none", "enable_thinking": False}),
        (Thinking(enabled=False), {"enable_thinking": False}),
        (Thinking(enabled=True, effort="low"), {"reasoning_effort": "low"}),
        (Thinking(budget=5), {}),
    ],
)
def test_the_template_is_told_in_its_own_words(thinking, expected):
    """Every variable that it reads; every effort but none is on."""
    told = thinking_variables(thinking, THINKER)
    assert told.items() >= expected.items()
    assert told.get("thinking") == told.get("enable_thinking")


def test_a_template_is_told_nothing_it_does_not_read():
    """A switch that is not there is not turned."""
    assert thinking_variables(Thinking(effort="low"), EFFORT_ONLY) == {"reasoning_effort": "low"}


def test_the_clients_own_variables_win():
    """What is said by name stands over what follows from an effort."""
    job = lower(
        "chat",
        THINKER,
        reasoning_effort="high",
        chat_template_kwargs={"enable_thinking": False, "thinking": False},
    )
    assert prompt(job, THINKER).endswith("high")


def test_a_budget_counts_from_the_start_where_the_prompt_opened_the_reasoning():
    """Else from the marker."""
    assert thinking_budget(Thinking(budget=3), OPENED, opened=True).begin == ()
    marker = tuple(OPENED.tokenizer.encode("<think>", special=False))
    assert thinking_budget(Thinking(budget=3), OPENED, opened=False).begin == marker
    job = lower("chat", OPENED, thinking_token_budget=3)
    assert job.requests[0].sampling.thinking.begin == ()


def test_reasoning_that_the_prompt_opened_may_stay_in_the_content():
    """As the model writes it, and then nothing is counted as reasoning."""
    apart = choice(lower("chat", OPENED), "why</think>so")["message"]
    assert (apart["content"], apart["reasoning_content"]) == ("so", "why")
    whole = lower("chat", OPENED, separate_reasoning=False)
    assert choice(whole, "why</think>so")["message"]["content"] == "why</think>so"
    assert whole.renderer.usage.reasoning_tokens == 0


def test_a_continued_turn_keeps_its_first_space():
    """A sentencepiece decoder must know that the text goes on."""
    model = served_model(backend=sentencepiece(), stop_tokens=frozenset())
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "hello"}]
    job = lower("chat", model, messages=messages, continue_final_message=True)
    world = model.tokenizer.encode("world", special=False)
    fresh = lower("chat", model)
    assert job.renderer._choices[0]._detokenizer.feed(world) == " world"
    assert fresh.renderer._choices[0]._detokenizer.feed(world) == "world"
