"""Which tokens of a conversation's prompt are its system part, for keys that share it in a group.

The system part is what the template makes of the system messages at the beginning and of the tools,
up to where it puts the first words of a user. Nothing that a user or an assistant says is in it,
nor decides how far it goes, or whoever shares it could tell how others begin: since a token may
span its end, it ends behind the last token that stands for itself whatever follows (as
`<|im_start|>` does), or some tokens early where the template has none near there.
"""

from dataclasses import replace

from engines.api import SharedPrefix
from engines.text.template import TemplateBroken
from openai_compat.conversation.ask import Conversation
from openai_compat.conversation.prompt import prompt_text
from openai_compat.errors import RequestRejected
from openai_compat.served import CallContext, ServedModel

# Stands for a user's first words. Where it is in the system messages as well, less is shared.
_MARK = "pstk-user-1"
_SPANNED = 16  # tokens at the end that what follows might have changed


def shared_part(
    conversation: Conversation,
    prompt: list[int],
    model: ServedModel,
    call: CallContext,
    *,
    special: bool,
) -> SharedPrefix | None:
    """What a prompt shares in the call's group; None where there is no group, or nothing."""
    if not call.group_salt:
        return None
    text = _system_text(conversation, model, call)
    tokens = _settled(model.tokenizer.encode(text, special=special), model)
    if not tokens or prompt[: len(tokens)] != tokens:
        # It was cut on its left, or the tokenizer closes each text with a token of its own, or the
        # template puts the system elsewhere as a conversation goes on.
        return None
    return SharedPrefix(call.group_salt, len(tokens))


def _system_text(conversation: Conversation, model: ServedModel, call: CallContext) -> str:
    """The prompt of a conversation whose user says a mark, up to the mark."""
    leading = []
    for message in conversation.messages:
        if message["role"] not in {"system", "developer"}:
            break
        leading.append(message)
    asked = (*leading, {"role": "user", "content": _MARK})
    try:
        text = prompt_text(replace(conversation, messages=asked, continue_final=False), model, call)
    except (RequestRejected, TemplateBroken):
        return ""  # the template wants a conversation to be otherwise
    return text[: max(text.find(_MARK), 0)]


def _settled(tokens: list[int], model: ServedModel) -> list[int]:
    """Those at the beginning of a text that stay as they are whatever it goes on with."""
    last = len(tokens) - _SPANNED
    added = model.tokenizer.added_tokens
    for place in range(len(tokens), max(last, 0), -1):
        if tokens[place - 1] in added:
            return tokens[:place]
    return tokens[: max(last, 0)]
