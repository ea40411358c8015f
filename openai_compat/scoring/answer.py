"""Scores as the JSON that clients of Jina, Cohere and vLLM read."""

from collections.abc import Sequence
from dataclasses import dataclass

from openai_compat.sse import json_bytes
from openai_compat.vector_job import usage_of


@dataclass(frozen=True, slots=True)
class Scored:
    """What the answer says besides the scores."""

    id: str
    created: int
    model: str
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a rerank shows: how many of the best, and their texts as they came, or None."""

    texts: Sequence[str] | None
    top: int


def rerank_answer(scores: Sequence[float], *, scored: Scored, ranking: Ranking) -> bytes:
    """The best first; equal ones in the order in which they came."""
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[: ranking.top]
    results = []
    for index in best:
        result: dict[str, object] = {"index": index, "relevance_score": scores[index]}
        if ranking.texts is not None:
            result["document"] = {"text": ranking.texts[index]}
        results.append(result)
    return json_bytes(
        {
            "id": scored.id,
            "model": scored.model,
            "results": results,
            "usage": usage_of(scored.prompt_tokens),
            "meta": {"tokens": {"input_tokens": scored.prompt_tokens, "output_tokens": 0}},
        }
    )


def score_answer(scores: Sequence[float], *, scored: Scored) -> bytes:
    """In the order of the pairs."""
    data = [
        {"index": index, "object": "score", "score": score} for index, score in enumerate(scores)
    ]
    return json_bytes(
        {
            "id": scored.id,
            "object": "list",
            "created": scored.created,
            "model": scored.model,
            "data": data,
            "usage": usage_of(scored.prompt_tokens),
        }
    )
