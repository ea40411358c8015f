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
    "bootstrap_host": (),
    "bootstrap_port": (),
    "bootstrap_room": (),
    "custom_labels": ({},),
    "custom_logit_processor": (),
    "custom_params": ({},),
    "data_parallel_rank": (),
    "detokenize": (True,),
    "disagg_prefill_dp_rank": (),
    "ec_transfer_params": (),
    "extra_key": (),
    "guided_backend": (),
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "images_config": ({},),
    "kv_transfer_params": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "logprob_token_ids": (),
    "lora_path": (),
    "lora_request": (),  # a request may carry no path; adapters are models here
    "ngram_corpus_id": (),
    "prompt_embeds": (),
    "repetition_detection": (),
    "request_id": (),
    "return_cached_tokens_details": (False,),
    "return_hidden_states": (False,),
    "return_meta_info": (False,),
    "return_mm_kwargs": (True,),
    "return_prompt_token_ids": (False,),
    "return_routed_experts": (False,),
    "return_token_offsets": (False,),
    "rid": (),
    "routed_dp_rank": (),
    "routed_experts_prompt_start": (0,),
    "routed_experts_start_len": (0,),
    "session_params": ({},),
    "stop_regex": ([],),
    "stream_interval": (1,),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermarking": (False,),
}


def refuse_unsupported(fields: Fields, neutral: Neutral) -> None:
    """Raises `RequestRejected` (unsupported_parameter) for the first field that asks something."""
    for name, given in fields.values():
        if given is None or name not in neutral:
            continue
        if not any(_same(given, value) for value in neutral[name]):
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
