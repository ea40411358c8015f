"""The seam between dialect and process for calls that are answered from vectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engines.api import EmbeddingRequest

Vector = Sequence[float]


@dataclass(frozen=True, slots=True)
class VectorJob:
    """One API call after every check that needs no engine."""

    id: str
    requests: tuple[EmbeddingRequest, ...]
    answer: Callable[[Sequence[Vector]], bytes]  # the JSON body, from the vectors in order
    ignored: tuple[str, ...] = ()  # unknown body fields as the client spelled them

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all requests: what the client is charged."""
        return sum(len(request.prompt) for request in self.requests)


def usage_of(prompt_tokens: int) -> dict[str, object]:
    """The usage object of an answer without generated tokens."""
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
