"""Fields that OpenAI or vLLM define and this dialect does not act on yet.

Their neutral values ask for nothing and are accepted; any other value is refused by name, because
an answer that ignored it would be wrong without saying so.
"""

from collections.abc import Mapping

from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields

Neutral = Mapping[str, tuple[object, ...]]  # field -> its neutral values; null is always one

# Extensions of vLLM and SGLang, on both routes.
ENGINE_EXTENSIONS: Neutral = {
    "add_special_tokens": (),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "cache_salt": (),  # ours is derived from the API key
    "continue_final_message": (False,),
    "detokenize": (True,),
    "ebnf": (),
    "guided_backend": (),
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_whitespace_pattern": (),
    "include_stop_str_in_output": (False,),
    "json_schema": (),
    "kv_transfer_params": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "lora_path": (),
    "no_stop_trim": (False,),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "regex": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "session_params": (),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "structural_tag": (),
    "structured_outputs": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
}


def refuse_unsupported(fields: Fields, neutral: Neutral) -> None:
    """Raises `RequestRejected` (unsupported_parameter) for the first field that asks something."""
    for name, values in neutral.items():
        given = fields.raw(name)
        if given is not None and not any(_same(given, value) for value in values):
            raise unsupported(fields.param(name))


def unsupported(param: str, how: str = "") -> RequestRejected:
    """The refusal of a known field that is not built, or not `how` it was used."""
    return RequestRejected(
        f"'{param}'{how} is not supported by this server yet; leave it out or at its default.",
        param=param,
        code="unsupported_parameter",
    )


def _same(given: object, value: object) -> bool:
    """Equal as JSON: true is not 1, 1.0 is."""
    return isinstance(given, bool) is isinstance(value, bool) and given == value
