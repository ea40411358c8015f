"""The request fields that rivals define; OpenAI's come from its SDK.

Read from the sources of vLLM at 002032ee and SGLang at 004c82e0, and the names that older releases
of vLLM had.
"""

_VLLM = """
    frequency_penalty logit_bias logprobs max_tokens model n presence_penalty response_format seed
    stop stream stream_options temperature top_p user use_beam_search top_k min_p
    repetition_penalty watermarking length_penalty stop_token_ids include_stop_str_in_output
    ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens
    truncation_side allowed_token_ids prompt_logprobs logprob_token_ids bad_words
    add_special_tokens structured_outputs priority request_id session_id
    return_tokens_as_token_ids return_token_ids routed_experts_prompt_start return_token_offsets
    return_mm_kwargs cache_salt kv_transfer_params ec_transfer_params vllm_xargs
    repetition_detection thinking_token_budget stream_interval echo
    guided_json guided_regex guided_choice guided_grammar guided_decoding_backend
    guided_whitespace_pattern logits_processors
"""
_VLLM_CHAT = """
    messages top_logprobs max_completion_tokens tools tool_choice reasoning_effort
    include_reasoning parallel_tool_calls add_generation_prompt continue_final_message documents
    chat_template chat_template_kwargs media_io_kwargs mm_processor_kwargs return_prompt_text
"""
_VLLM_TEXT = "prompt suffix prompt_embeds best_of"
_SGLANG = """
    return_hidden_states return_routed_experts routed_experts_start_len
    return_cached_tokens_details return_token_ids regex ebnf stop_regex no_stop_trim lora_path
    session_id session_params custom_params custom_logit_processor images_config bootstrap_host
    bootstrap_port bootstrap_room routed_dp_rank disagg_prefill_dp_rank data_parallel_rank rid
    extra_key cache_salt ngram_corpus_id priority custom_labels json_schema
"""
_SGLANG_CHAT = """
    return_prompt_token_ids return_meta_info task separate_reasoning stream_reasoning
    max_dynamic_patch min_dynamic_patch use_audio_in_video input_ids continue_final_message
"""
_TRTLLM = "lora_request disaggregated_params"  # what trtllm-serve's clients send to workers

RIVALS = {
    "chat": set(f"{_VLLM} {_VLLM_CHAT} {_SGLANG} {_SGLANG_CHAT} {_TRTLLM}".split()),
    "completions": set(f"{_VLLM} {_VLLM_TEXT} {_SGLANG} {_TRTLLM}".split()),
}
