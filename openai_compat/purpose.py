"""What a served model is for: the refusal of calls that it cannot answer."""

from openai_compat.errors import RequestRejected
from openai_compat.served import ServedModel


def require_generation(model: ServedModel) -> None:
    """Raises `RequestRejected` (model_does_not_generate) for a model that only makes vectors."""
    if not model.info.generates:
        has = "/v1/rerank and /v1/score" if model.info.ranks else "/v1/embeddings"
        raise _refused(f"This model generates no text; use {has}.", "model_does_not_generate")


def require_embeddings(model: ServedModel) -> None:
    """Raises `RequestRejected` (model_does_not_embed) for a model without embeddings."""
    if model.info.embeds is None:
        has = "/v1/rerank and /v1/score" if model.info.ranks else "/v1/chat/completions"
        raise _refused(f"This model makes no embeddings; use {has}.", "model_does_not_embed")


def require_ranking(model: ServedModel) -> None:
    """Raises `RequestRejected` (model_does_not_rank) for a model that cannot compare texts."""
    if model.info.embeds is None and not model.info.ranks:
        raise _refused("This model compares no texts.", "model_does_not_rank")


def _refused(message: str, code: str) -> RequestRejected:
    return RequestRejected(message, param="model", code=code)
