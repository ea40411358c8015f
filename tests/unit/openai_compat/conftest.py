"""Lowering with less typing."""

import pytest

from openai_compat.chat.lower import lower_chat
from openai_compat.completions.lower import lower_completion
from openai_compat.errors import RequestRejected
from tests.support.tokenizers import CALL, served_model

MODEL = served_model()
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def chat():
    """Lower a chat of one message with the given fields."""

    def lower(model=MODEL, **fields):
        return lower_chat({"model": "tiny", "messages": MESSAGES, **fields}, model, CALL)

    return lower


@pytest.fixture
def complete():
    """Lower a completion of one prompt with the given fields."""

    def lower(model=MODEL, **fields):
        return lower_completion({"model": "tiny", "prompt": "hello", **fields}, model, CALL)

    return lower


@pytest.fixture
def refusal():
    """The reply of a call that must be refused."""

    def refused(lower, **fields):
        with pytest.raises(RequestRejected) as caught:
            lower(**fields)
        return caught.value.reply

    return refused
