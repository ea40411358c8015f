"""The usage object."""

from openai_compat.job import Usage

_NO_PREDICTION = {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}


def usage_object(usage: Usage, *, predicted: bool = False) -> dict[str, object]:
    """OpenAI's usage object, with the cached part of the prompt and the answer's reasoning.

    Of a prediction no token is ever used, and none is charged.
    """
    details = {"reasoning_tokens": usage.reasoning_tokens}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": details | _NO_PREDICTION if predicted else details,
    }
