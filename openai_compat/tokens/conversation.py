"""The prompt of a conversation, by the readers of chat completions."""

from openai_compat.chat.prompting import (
    PROMPTING_FIELDS,
    read_continuation,
    read_template_kwargs,
    read_thinking,
)
from openai_compat.chat.schema import read_messages
from openai_compat.conversation.ask import Conversation
from openai_compat.conversation.prompt import prompt_text
from openai_compat.conversation.tools import TOOL_FIELDS, read_tool_use
from openai_compat.fields import Fields
from openai_compat.served import CallContext, ServedModel

CONVERSATION_FIELDS = PROMPTING_FIELDS | TOOL_FIELDS | {"messages"}


def read_chat(fields: Fields, model: ServedModel, call: CallContext) -> tuple[str, tuple[str, ...]]:
    """The prompt text, and unknown names in the messages. Raises `RequestRejected`."""
    messages, ignored = read_messages(fields)
    continues, opens = read_continuation(fields, messages)
    conversation = Conversation(
        tuple(messages),
        read_tool_use(fields),
        thinking=read_thinking(fields, model),
        template_kwargs=read_template_kwargs(fields, model),
        continue_final=continues,
        add_generation_prompt=opens,
    )
    return prompt_text(conversation, model, call), ignored
