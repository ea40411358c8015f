"""The fields that chat and text completions share: sampling, stops, streaming, labels, usage."""

from openai_compat.cache_salt import MAX_SALT_CHARS
from openai_compat.engine_extras import EXTRAS_FIELDS, MAX_EXTRAS
from openai_compat.guides import MAX_BAD_WORD_BYTES, MAX_BAD_WORDS
from openai_compat.openapi.shapes import (
    Schema,
    answer,
    choice,
    flag,
    integer,
    items,
    nullable,
    number,
    record,
    text,
)
from openai_compat.options import MAX_N, MAX_PRIORITY, MAX_STOP_BYTES, MAX_STOPS
from openai_compat.sampling import (
    MAX_LOGIT_BIAS,
    MAX_PROMPT_LOGPROBS,
    MAX_STOP_TOKENS,
    MAX_TOKENS,
)

_STOP = text(minLength=1, maxLength=MAX_STOP_BYTES)
_TOKEN = integer(0, None, "A token id of the model.")
_SCHEMA: Schema = {
    "anyOf": [{"type": "object"}, text()],
    "description": "A JSON schema of the answer, or its text.",
}

FIELDS: dict[str, Schema] = {
    "model": text("The name of a served model, or an alias of one.", minLength=1),
    "n": integer(1, MAX_N, "Answers to each prompt.", default=1),
    "stop": {
        "anyOf": [_STOP, items(_STOP, maxItems=MAX_STOPS)],
        "description": f"Texts that end the answer before them, of {MAX_STOP_BYTES} bytes each.",
    },
    "stream": flag("Answer with events as tokens are made."),
    "stream_options": record(
        {
            "include_usage": nullable(flag("One more chunk with the usage, before `[DONE]`.")),
            "include_obfuscation": nullable(flag("Pad events, so that sizes tell less.")),
            "continuous_usage_stats": nullable(flag("The usage so far on every chunk.")),
        }
    ),
    "user": text("A label of yours.", maxLength=512),
    "priority": integer(-MAX_PRIORITY, MAX_PRIORITY, "Lower is served earlier.", default=0),
    "temperature": number(0, 2, "0: always the likeliest token. Default: the model's, else 1."),
    "top_p": number(0, 1, "Only the likeliest tokens of this mass.", above_low=True),
    "top_k": integer(-1, None, "Only so many of the likeliest tokens; 0 and -1: all."),
    "min_p": number(0, 1, "Only tokens at least this likely, relative to the likeliest."),
    "presence_penalty": number(-2, 2, "Against tokens that were said."),
    "frequency_penalty": number(-2, 2, "Against tokens by how often they were said."),
    "repetition_penalty": number(0, 10, "Above 1: against repetition.", above_low=True),
    "logit_bias": {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,20}$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        "maxProperties": MAX_LOGIT_BIAS,
        "description": "Token id to what is added to its logit.",
    },
    "seed": integer(-(2**63), 2**63 - 1, "The same seed gives the same answer."),
    "min_tokens": integer(0, MAX_TOKENS, "No end before so many tokens."),
    "max_tokens": integer(1, MAX_TOKENS, "At most so many tokens."),
    "stop_token_ids": items(_TOKEN, "Tokens that end the answer.", maxItems=MAX_STOP_TOKENS),
    "ignore_eos": flag("Go on where the model would end."),
    "allowed_token_ids": items(_TOKEN, "No other token is ever said.", minItems=1),
    "bad_words": items(
        text(minLength=1, maxLength=MAX_BAD_WORD_BYTES), "Never said.", maxItems=MAX_BAD_WORDS
    ),
    "prompt_logprobs": integer(
        0, MAX_PROMPT_LOGPROBS, "How likely each token of the prompt was; not with stream."
    ),
    "include_stop_str_in_output": flag("Show what ended the answer as its end."),
    "no_stop_trim": flag("The same as include_stop_str_in_output."),
    "skip_special_tokens": flag("Whether special tokens are left out.", default=True),
    "spaces_between_special_tokens": flag("Accepted; none are ever put there.", default=True),
    "return_token_ids": flag("Tell the token ids of prompt and answer."),
    "return_tokens_as_token_ids": flag("Name tokens by id in log-probabilities."),
    "add_special_tokens": flag("What the tokenizer itself puts around a text, BOS for one."),
    "truncate_prompt_tokens": integer(
        -1, None, "Keep so many tokens of the prompt; -1: what leaves room for the answer."
    ),
    "truncation_side": choice("Which side is cut off.", "left", "right"),
    "cache_salt": text(
        "A prefix cache of its own, within yours.", minLength=1, maxLength=MAX_SALT_CHARS
    ),
    "session_id": text("A label of yours.", maxLength=512),
    "engine_extras": {
        "type": "object",
        "additionalProperties": {"type": "object"},
        "maxProperties": MAX_EXTRAS,
        "description": "Only for the engine, where the server takes it (--engine-extras).",
    },
    "disaggregated_params": {
        "type": "object",
        "description": "TensorRT-LLM's phases; the same as trtllm.disaggregated in engine_extras.",
    },
    "response_format": {"description": "The form of the answer: text, or JSON as a schema says."},
    "structured_outputs": {"type": "object", "description": "The form, in vLLM's words."},
    "structural_tag": {"type": "object", "description": "Free text with formed parts in it."},
    "guided_json": _SCHEMA,
    "json_schema": _SCHEMA,
    "guided_regex": text("An expression for the whole answer."),
    "regex": text("An expression for the whole answer."),
    "guided_grammar": text("A Lark grammar of the answer."),
    "ebnf": text("A Lark grammar of the answer."),
    "guided_choice": items(text(minLength=1), "The answers there are.", minItems=1),
}

# Told only to who asks for it; every one of them stands in a `maybe`.
TOKEN_IDS = items(_TOKEN, "The tokens of the answer, of one chunk in a stream.")
PROMPT_IDS = items(_TOKEN, "The tokens of the prompt.")
PROMPT_LOGPROBS = items(
    nullable(
        {
            "type": "object",
            "additionalProperties": answer(
                {
                    "logprob": number(-9999, 0, "Natural logarithm; -9999 for impossible."),
                    "rank": nullable(integer(1, None, "Null where it is not known.")),
                    "decoded_token": text(),
                }
            ),
        }
    ),
    "For each token of the prompt but the first: token id to how likely it was.",
)
OBFUSCATION = text("Letters that mean nothing.")
EXTRAS: dict[str, Schema] = {
    name: {"type": "object", "description": "What the engine answers to the same field."}
    for name in sorted(EXTRAS_FIELDS)
}

SCHEMAS: dict[str, Schema] = {
    "Usage": answer(
        {
            "prompt_tokens": integer(0),
            "completion_tokens": integer(0),
            "total_tokens": integer(0),
            "prompt_tokens_details": answer(
                {"cached_tokens": integer(0, None, "Of the prompt, found in the prefix cache.")}
            ),
            "completion_tokens_details": answer(
                {
                    "reasoning_tokens": integer(0, None, "Of the answer, spent on thinking."),
                    "accepted_prediction_tokens": integer(0, 0, "None is ever used."),
                    "rejected_prediction_tokens": integer(0, 0),
                },
                maybe=("accepted_prediction_tokens", "rejected_prediction_tokens"),
            ),
        }
    ),
}
