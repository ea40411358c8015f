"""The fields and messages of a chat request: what is known, what is neutral, what is refused."""

from openai_compat.chat.labels import LABEL_FIELDS
from openai_compat.chat.prompting import PROMPTING_FIELDS
from openai_compat.context import TRUNCATION_FIELDS
from openai_compat.conversation.formats import FORMAT_FIELDS
from openai_compat.conversation.tools import TOOL_FIELDS, read_calls
from openai_compat.engine_extras import EXTRAS_FIELDS
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, describe, wrong
from openai_compat.options import OPTION_FIELDS
from openai_compat.sampling import SAMPLING_FIELDS
from openai_compat.unsupported import ENGINE_EXTENSIONS, Neutral, refuse_unsupported, unsupported

MAX_MESSAGES = 2048
_MAX_NAME_CHARS = 64
_MAX_ID_CHARS = 256

ACTED_ON = (
    SAMPLING_FIELDS
    | OPTION_FIELDS
    | LABEL_FIELDS
    | PROMPTING_FIELDS
    | TRUNCATION_FIELDS
    | EXTRAS_FIELDS
    | TOOL_FIELDS
    | FORMAT_FIELDS
    | {
        "add_special_tokens",
        "cache_salt",
        "include_reasoning",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "reasoning_fields",
        "separate_reasoning",
        "top_logprobs",
    }
)

UNSUPPORTED: Neutral = {
    **ENGINE_EXTENSIONS,
    "audio": (),
    "chat_template": (),  # a request may carry no template text
    "documents": ([],),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "input_ids": (),
    "max_dynamic_patch": (),
    "media_io_kwargs": ({},),
    "min_dynamic_patch": (),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "prompt_cache_options": ({}, {"mode": "implicit"}),
    "return_prompt_text": (False,),
    "store": (False,),  # there is nowhere to read a stored chat from; Responses are stored
    "stream_reasoning": (True,),
    "task": (),
    "use_audio_in_video": (False,),
    "web_search_options": (),
}

KNOWN = ACTED_ON | UNSUPPORTED.keys()

# role -> the fields of its messages that reach the template, besides role and content
_ROLES: dict[str, tuple[str, ...]] = {
    "system": (),
    "developer": (),
    "user": (),
    "assistant": ("reasoning_content", "reasoning", "tool_calls", "refusal"),
    "tool": ("tool_call_id",),
}
_MESSAGE_NEUTRAL: Neutral = {
    "audio": (),
    "function_call": (),
}
_LISTED_TEXT_PARTS = ("text", "input_text")


def read_messages(fields: Fields) -> tuple[list[dict[str, object]], tuple[str, ...]]:
    """The messages with string contents, and the unknown names found in them.

    Raises `RequestRejected` naming the place, such as `messages[2].content[0].type`.
    """
    given = fields.items("messages", MAX_MESSAGES)
    if not given:
        raise wrong("messages", f"an array of 1 to {MAX_MESSAGES} messages", given)
    messages = []
    ignored: dict[str, None] = {}
    for place, value in enumerate(given):
        param = f"messages[{place}]"
        if not isinstance(value, dict):
            raise wrong(param, "an object", value)
        message = Fields(value, param)
        messages.append(_read_message(message))
        known = ("role", "content", "name", *_MESSAGE_NEUTRAL, *_ROLES[str(value["role"])])
        for name in message.unknown(known):
            ignored["messages" + name.removeprefix(param)] = None
    return messages, tuple(ignored)


def _read_message(message: Fields) -> dict[str, object]:
    role = message.raw("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(message.param("role"), "one of " + ", ".join(_ROLES), role)
    refuse_unsupported(message, _MESSAGE_NEUTRAL)
    lowered: dict[str, object] = {"role": role, "content": _content(message, role)}
    name = message.text("name", _MAX_NAME_CHARS)
    if name is not None:
        lowered["name"] = name
    if role == "tool":
        lowered["tool_call_id"] = message.text("tool_call_id", _MAX_ID_CHARS) or ""
    if role == "assistant":
        calls = read_calls(message)
        if calls:
            lowered["tool_calls"] = calls
        reasoning = message.text("reasoning_content") or message.text("reasoning")
        if reasoning:
            # gpt-oss templates read `thinking`; transformers fills both.
            lowered["reasoning_content"] = lowered["thinking"] = reasoning
    return lowered


def _content(message: Fields, role: str) -> str:
    """The content as one string; text parts are joined by line breaks."""
    content = message.raw("content")
    if isinstance(content, str):
        return content
    if content is None and role == "assistant":
        return message.text("refusal") or ""
    if not isinstance(content, list):
        raise wrong(message.param("content"), "a string or an array of text parts", content)
    param = message.param("content")
    return "\n".join([_part(part, f"{param}[{place}]") for place, part in enumerate(content)])


def _part(part: object, param: str) -> str:
    if not isinstance(part, dict):
        raise wrong(param, "an object", part)
    kind = part.get("type")
    if kind == "refusal":
        part, kind = {"text": part.get("refusal")}, "text"
    if kind not in _LISTED_TEXT_PARTS:
        if isinstance(kind, str) and kind in ("image_url", "input_audio", "file"):
            raise unsupported(f"{param}.type")
        raise RequestRejected(
            f"Invalid value for '{param}.type': only text parts are understood, got"
            f" {describe(kind)}.",
            param=f"{param}.type",
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise wrong(f"{param}.text", "a string", text)
    return text
