"""The response object: what was asked, repeated, and what has become of it by now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from openai_compat.errors import ErrorReply
from openai_compat.job import Usage
from openai_compat.sse import json_bytes


class Status(StrEnum):
    """Where a response is in its life."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"  # its tokens were used up
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def live(self) -> bool:
        """Whether it may still change."""
        return self in {Status.QUEUED, Status.IN_PROGRESS}


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Makes the object at any moment. `echo` are the fields that never change."""

    id: str
    created: int
    echo: Mapping[str, object]

    def object(
        self,
        status: Status,
        output: Sequence[Mapping[str, object]],
        *,
        usage: Usage | None = None,
        error: ErrorReply | None = None,
    ) -> dict[str, object]:
        """The object, keys in OpenAI's order where it has one."""
        cut = {"reason": "max_output_tokens"} if status is Status.INCOMPLETE else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None if error is None else _failure(error),
            "incomplete_details": cut,
            "output": output,
            **self.echo,
            "usage": None if usage is None else response_usage(usage),
        }


def shown_as(shown: bytes, status: Status, error: ErrorReply | None = None) -> bytes:
    """A response object that was shown when it began, with another status."""
    told = msgspec.json.decode(shown)
    told |= {"status": status, "error": None if error is None else _failure(error)}
    return json_bytes(told)


def response_usage(usage: Usage) -> dict[str, object]:
    """The usage object. Nothing is charged for writing to the cache, so it counts 0."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _failure(error: ErrorReply) -> dict[str, object]:
    """The `error` of a failed response; its codes are a closed set, the message says more."""
    code = "server_error"
    if error.status == 429:
        code = "rate_limit_exceeded"
    elif error.status < 500:
        code = "invalid_prompt"
    return {"code": code, "message": error.message}
