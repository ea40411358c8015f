"""A conversation as the prompt text that the model's own chat template makes of it."""

from collections.abc import Mapping, Sequence

from engines.text.sandbox import MAX_CHARS
from engines.text.template import ChatTemplate, TemplateOverrun, TemplateRefused
from openai_compat.context import no_room_for
from openai_compat.conversation.ask import Conversation, Message, ToolMode
from openai_compat.conversation.thinking import thinking_variables
from openai_compat.errors import RequestRejected
from openai_compat.served import CallContext, ServedModel

_MAX_REASON_CHARS = 200  # templates may quote the message they refuse


def prompt_text(conversation: Conversation, model: ServedModel, call: CallContext) -> str:
    """The prompt. Raises `RequestRejected` where there is no template, or it refuses."""
    template = model.template
    if template is None:
        raise RequestRejected(
            "This model has no chat template; use /v1/completions.",
            param="model",
            code="no_chat_template",
        )
    messages = _with_system(conversation.messages, template)
    use = conversation.tool_use
    tools = [] if use.mode is ToolMode.NONE else [tool.for_template() for tool in use.tools]
    try:
        text = template.render(
            messages,
            now=call.now,
            add_generation_prompt=(
                conversation.add_generation_prompt and not conversation.continue_final
            ),
            tools=tools or None,
            extra={
                **thinking_variables(conversation.thinking, model),
                **conversation.template_kwargs,
            },
        )
    except TemplateRefused as refusal:
        raise RequestRejected(
            f"The model's chat template refuses these messages: {str(refusal)[:_MAX_REASON_CHARS]}",
            param=conversation.param,
            code="messages_refused_by_template",
        ) from refusal
    except TemplateOverrun as overrun:
        raise no_room_for(
            f"more than {MAX_CHARS} characters", model, conversation.param
        ) from overrun
    if not conversation.continue_final:
        return text
    return _cut(text, messages[-1], conversation.continue_param)


def _cut(text: str, final: Message, param: str) -> str:
    """The prompt up to the end of the last message's own words: the model goes on there."""
    said = str(final["content"])
    place = text.rfind(said.strip())
    if place < 0 or not said.strip():
        raise RequestRejected(
            "The last message cannot be continued: the model's chat template does not repeat its"
            " content as it is.",
            param=param,
            code="messages_refused_by_template",
        )
    whole = said.lstrip()
    if text.startswith(whole, place):
        return text[: place + len(whole)]
    return text[: place + len(said.strip())]


def _with_system(messages: Sequence[Message], template: ChatTemplate) -> list[Mapping[str, object]]:
    """Developer messages as system messages; all in one at the start where the template needs it.

    Templates that were written for one leading system message refuse others, or lose them.
    """
    mapped: list[Mapping[str, object]] = [
        {**message, "role": "system"} if message["role"] == "developer" else message
        for message in messages
    ]
    if template.keeps_scattered_system:
        return mapped
    system = [message for message in mapped if message["role"] == "system"]
    if not system or (len(system) == 1 and mapped[0] is system[0]):
        return mapped
    text = "\n\n".join(str(message["content"]) for message in system)
    rest = [message for message in mapped if message["role"] != "system"]
    return [{"role": "system", "content": text}, *rest]
