"""The fields of a response request: what is known, what is neutral, what is refused."""

from openai_compat.conversation.formats import FORMAT_FIELDS
from openai_compat.engine_extras import EXTRAS_FIELDS
from openai_compat.fields import wrong
from openai_compat.sampling import SAMPLING_FIELDS
from openai_compat.unsupported import ENGINE_EXTENSIONS, Neutral, unsupported

LOGPROBS = "message.output_text.logprobs"
# The others ask for outputs of built-in tools, images, or reasoning that only we could read.
_INCLUDES = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
_MAX_INCLUDES = 32

ACTED_ON = (SAMPLING_FIELDS - {"prompt_logprobs"}) | {
    "background",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "priority",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "store",
    "stream",
    "stream_options",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "truncation",
    "user",
}

# What other routes call it, or only they have: the answer would not be as asked.
_ELSEWHERE = (
    FORMAT_FIELDS
    | EXTRAS_FIELDS
    | {
        "enable_thinking",
        "function_call",
        "functions",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "reasoning_effort",
        "thinking_budget",
        "thinking_token_budget",
        "verbosity",
    }
)

UNSUPPORTED: Neutral = {
    **ENGINE_EXTENSIONS,
    **dict.fromkeys(_ELSEWHERE, ()),
    "access_programs": ({},),
    "add_special_tokens": (),
    "background_options": ({}, {"completion_window": "soonest"}),
    "context_management": ([],),
    "cache_salt": (),
    "chat_template": (),  # a request may carry no template text
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "conversation": (),
    "echo": (False,),
    "image": ({}, {"context_compression": "auto"}),
    "include_stop_str_in_output": (False,),
    "logprobs": (False,),  # chat's name for it
    "moderation": (),
    "n": (1,),
    "personality": (),  # of input_tokens
    "prompt": (),
    "prompt_cache_options": ({}, {"mode": "implicit"}),
    "prompt_cache_retention": ("in_memory",),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "stop": ([],),
    "truncate_prompt_tokens": (),  # see truncation
}

KNOWN = ACTED_ON | UNSUPPORTED.keys()


def read_include(values: list[object], param: str) -> bool:
    """Whether log-probabilities are included. Raises `RequestRejected` for anything else."""
    if len(values) > _MAX_INCLUDES:
        raise wrong(param, f"an array of at most {_MAX_INCLUDES} items", values)
    for place, value in enumerate(values):
        if value in _INCLUDES:
            raise unsupported(f"{param}[{place}]")
        if value != LOGPROBS:
            raise wrong(f"{param}[{place}]", f"'{LOGPROBS}'", value)
    return bool(values)
