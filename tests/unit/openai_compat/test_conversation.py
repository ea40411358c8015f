"""Conversations to prompts: tools, continued messages, template variables."""

import pytest

from engines.text.template import ChatTemplate
from openai_compat.conversation.ask import Conversation, Tool, ToolMode, ToolUse
from openai_compat.conversation.prompt import prompt_text
from openai_compat.errors import RequestRejected
from tests.support.tokenizers import CALL, CHATML, served_model

HELLO = {"role": "user", "content": "hello"}
TOOLS = (Tool("f", "does", {"type": "object"}), Tool("g"))
LISTING = (
    "{% for t in tools or [] %}[{{ t.function.name }} {{ t.function.parameters }}]{% endfor %}"
)


def prompt(*messages, template=CHATML, **fields):
    model = served_model(template=template)
    return prompt_text(Conversation(messages or (HELLO,), **fields), model, CALL)


def test_a_continued_message_is_left_open():
    """The prompt ends with its last word, whatever space follows it."""
    final = {"role": "assistant", "content": "It is "}
    assert prompt(HELLO, final, continue_final=True).endswith("<|im_start|>assistant\nIt is ")


def test_a_template_that_trims_is_cut_after_the_trimmed_words():
    """Templates may strip what they repeat."""
    template = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}"
    final = {"role": "assistant", "content": " It is "}
    assert prompt(HELLO, final, template=template, continue_final=True) == "<hello><It is"


def test_a_message_that_the_template_hides_cannot_be_continued():
    """Refused by name, since the model would start anew."""
    with pytest.raises(RequestRejected) as refused:
        prompt(HELLO, {"role": "assistant", "content": "It"}, template="x", continue_final=True)
    assert refused.value.reply.param == "continue_final_message"


def test_tools_reach_the_template_unless_they_may_not_be_used():
    """A function without parameters has none; with tool_choice none the model sees no tools."""
    assert prompt(template=LISTING, tool_use=ToolUse(TOOLS)) == "[f {'type': 'object'}][g ]"
    none = ToolUse(TOOLS, ToolMode.NONE)
    assert prompt(template=LISTING + "x", tool_use=none) == "x"


def test_a_template_tells_which_variables_a_client_may_set():
    """Neither what the server provides nor what the template sets itself."""
    source = "{% set a = 1 %}{{ messages }}{{ a }}{{ bos_token }}{{ enable_thinking }}{{ dict() }}"
    assert ChatTemplate(source, {"bos_token": "<s>"}).variables == {"enable_thinking"}
    text = prompt(template="{{ enable_thinking }}", template_kwargs={"enable_thinking": False})
    assert text == "False"
