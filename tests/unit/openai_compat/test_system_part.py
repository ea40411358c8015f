"""What of a prompt is its system part: it depends on nothing that a user says."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.api import EngineInfo
from engines.text.template import ChatTemplate
from gateway.model_directory import read_text_side
from openai_compat.anthropic.lower import lower_message
from openai_compat.chat.lower import lower_chat
from openai_compat.completions.lower import lower_completion
from openai_compat.served import CallContext
from tests.support.live import TOKENIZER_DIR

GROUP = b"a group's salt."
CALL = CallContext("0" * 24, 0, 1, b"own", GROUP)
SYSTEM = "You are a careful clerk who never guesses."


@cache
def served_tiny():
    """The bundled model's text side, as the ledger serves it."""
    info = EngineInfo("m", 4096, 2048, 8, 512, 16, frozenset())
    return read_text_side(TOKENIZER_DIR).served_as(("m",), info, frozenset())


@pytest.fixture
def model():
    return served_tiny()


def lowered(model, *messages, call=CALL, **fields):
    """The request of a chat."""
    body = {"model": model.name, "messages": [*messages], **fields}
    return lower_chat(body, model, call).requests[0]


def says(text, role="user"):
    return {"role": role, "content": text}


def shared_text(model, request):
    return model.tokenizer.decode_spelled(request.prompt[: request.shared.tokens])


def test_it_ends_before_the_first_words_of_a_user(model):
    """Behind the token that opens the user's turn."""
    request = lowered(model, says(SYSTEM, "system"), says("Who are you?"))
    assert request.shared.salt == GROUP
    assert request.cache_salt == b"own"
    assert shared_text(model, request) == f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=9), max_size=2))
def test_nothing_that_is_said_changes_it(text, more):
    """Neither what is in it, nor how long it is."""
    model = served_tiny()
    turns = [says(text)]
    for each in more:
        turns += [says(each, "assistant"), says(each)]
    plain = lowered(model, says(SYSTEM, "system"), says("Hm"))
    request = lowered(model, says(SYSTEM, "system"), *turns)
    assert request.shared == plain.shared
    tokens = request.shared.tokens
    assert request.prompt[:tokens] == plain.prompt[:tokens]


def test_without_a_template_s_marks_the_end_is_left_out(model):
    """Sixteen tokens, which what follows might have changed."""
    plain = ChatTemplate("{% for m in messages %}{{ m.content }} {% endfor %}", {})
    bare = replace(model, template=plain)
    long = "one two three four five six seven eight nine ten " * 4
    whole = model.tokenizer.encode(long, special=False)
    request = lowered(bare, says(long, "system"), says("Hm"))
    assert len(whole) - 20 < request.shared.tokens < len(whole) - 12
    assert lowered(bare, says("one", "system"), says("Hm")).shared is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[-1].content }} {{ messages[0].content }}",
        "{{ raise_exception('no') if messages | length == 2 }}{{ messages[0].content }}",
        "{{ messages[2].content }}",
        "{% for m in messages %}{% if m.role != 'user' %}{{ m.content }}{% endif %}{% endfor %}",
    ],
)
def test_a_template_that_has_no_such_part_shares_nothing(model, source):
    """Rather than something else."""
    odd = replace(model, template=ChatTemplate(source, {}))
    turns = [says("a " * 40, "system"), says("b"), says("c", "assistant"), says("d")]
    assert lowered(odd, *turns).shared is None


def test_the_mark_in_a_system_prompt_only_shares_less(model):
    """Who writes it there cannot have a user's words shared."""
    system = "one two pstk-user-1 three"
    request = lowered(model, says(system, "system"), says("pstk-user-1"))
    assert "three" not in shared_text(model, request)


def test_a_prompt_that_is_cut_shares_nothing(model):
    """Its beginning is not the system's any more."""
    turns = [says(SYSTEM, "system"), says("a long question " * 30)]
    assert lowered(model, *turns, truncate_prompt_tokens=40, max_tokens=4).shared is None


def test_who_has_no_group_or_a_salt_of_ones_own_shares_nothing(model):
    """And neither does a completion, which has no system."""
    turns = [says(SYSTEM, "system"), says("Hm")]
    assert lowered(model, *turns, call=replace(CALL, group_salt=b"")).shared is None
    salted = lowered(model, *turns, cache_salt="mine")
    assert salted.shared is None
    assert salted.cache_salt not in {b"own", GROUP}
    body = {"model": model.name, "prompt": SYSTEM}
    assert lower_completion(body, model, CALL).requests[0].shared is None


def test_every_dialect_shares_the_same(model):
    """What is one prompt is one prompt."""
    chat = lowered(model, says(SYSTEM, "system"), says("Hm"))
    body = {
        "model": model.name, "max_tokens": 9, "system": SYSTEM, "messages": [says("Hm")],
    }  # fmt: skip
    (message,) = lower_message(body, model, CALL).requests
    assert (message.prompt, message.shared) == (chat.prompt, chat.shared)
