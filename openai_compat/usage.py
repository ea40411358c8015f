"""The usage object."""

from openai_compat.job import Usage


def usage_object(usage: Usage) -> dict[str, object]:
    """OpenAI's usage object, with the cached part of the prompt and the answer's reasoning."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
