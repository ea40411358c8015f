"""The fields that chat and text completions share: sampling, stops, streaming, labels, usage."""

from openai_compat.openapi.shapes import (
    Schema,
    answer,
    flag,
    integer,
    items,
    nullable,
    number,
    record,
    text,
)
from openai_compat.options import MAX_N, MAX_PRIORITY, MAX_STOP_BYTES, MAX_STOPS
from openai_compat.sampling import MAX_LOGIT_BIAS, MAX_STOP_TOKENS, MAX_TOKENS

_STOP = text(minLength=1, maxLength=MAX_STOP_BYTES)
_TOKEN = integer(0, None, "A token id of the model.")

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
            "include_obfuscation": nullable(flag("Accepted; no padding is ever added.")),
            "continuous_usage_stats": nullable(flag("Usage on every chunk.")),
        }
    ),
    "user": text("A label of yours.", maxLength=512),
    "priority": integer(-MAX_PRIORITY, MAX_PRIORITY, "Higher is served earlier.", default=0),
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
                {"reasoning_tokens": integer(0, None, "Of the answer, spent on thinking.")}
            ),
        }
    ),
}
