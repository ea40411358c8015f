"""Rerank and score requests to jobs: every check before anything starts."""

from collections.abc import Callable, Sequence
from functools import partial

from engines.text.many import Cut, shortened
from openai_compat.fields import Fields
from openai_compat.options import requested_model
from openai_compat.purpose import require_ranking
from openai_compat.scoring.answer import Ranking, Scored, rerank_answer, score_answer
from openai_compat.scoring.pairs import Judging, Side, judging
from openai_compat.scoring.schema import (
    MAX_DOCUMENTS,
    MAX_USER_CHARS,
    RERANK_FIELDS,
    RERANK_UNSUPPORTED,
    SCORE_FIELDS,
    SCORE_UNSUPPORTED,
    read_rerank_sides,
    read_score_sides,
)
from openai_compat.served import CallContext, ServedModel
from openai_compat.texts import as_requests, read_cut, read_priority
from openai_compat.unsupported import Neutral, refuse_unsupported
from openai_compat.vector_job import Vector, VectorJob


def lower_rerank(body: dict[str, object], model: ServedModel, call: CallContext) -> VectorJob:
    """Documents in the order in which they fit a query. Raises `RequestRejected`."""
    fields, cut, activation = _begin(body, model, RERANK_UNSUPPORTED)
    top_n = fields.integer("top_n", 0, 2**31 - 1)
    shows = fields.flag("return_documents", default=True)
    most = fields.integer("max_tokens_per_doc", 1, 2**31 - 1)
    query, documents = read_rerank_sides(fields)
    ranking = Ranking(documents.texts if shows else None, top_n or MAX_DOCUMENTS)
    if most is not None:
        documents = Side(shortened(documents.texts, model.tokenizer, most), documents.params)
    judged = judging(query, documents, model, cut=cut, activation=activation)
    scored = _scored("rerank", body, judged, call)
    write = partial(rerank_answer, scored=scored, ranking=ranking)
    return _job(judged, write, fields, RERANK_FIELDS | RERANK_UNSUPPORTED.keys(), call)


def lower_score(body: dict[str, object], model: ServedModel, call: CallContext) -> VectorJob:
    """One score per pair of texts. Raises `RequestRejected`."""
    fields, cut, activation = _begin(body, model, SCORE_UNSUPPORTED)
    first, second = read_score_sides(fields)
    judged = judging(first, second, model, cut=cut, activation=activation)
    scored = _scored("score", body, judged, call)
    write = partial(score_answer, scored=scored)
    return _job(judged, write, fields, SCORE_FIELDS | SCORE_UNSUPPORTED.keys(), call)


def _begin(
    body: dict[str, object], model: ServedModel, neutral: Neutral
) -> tuple[Fields, Cut | None, bool]:
    require_ranking(model)
    fields = Fields(body)
    refuse_unsupported(fields, neutral)
    fields.text("user", MAX_USER_CHARS)
    return fields, read_cut(fields, model), fields.flag("use_activation", default=True)


def _scored(kind: str, body: dict[str, object], judged: Judging, call: CallContext) -> Scored:
    tokens = sum(len(one.tokens) for one in judged.encoded)
    return Scored(f"{kind}-{call.id}", call.now, requested_model(body), tokens)


def _job(
    judged: Judging,
    write: Callable[[Sequence[float]], bytes],
    fields: Fields,
    known: frozenset[str],
    call: CallContext,
) -> VectorJob:
    def answer(vectors: Sequence[Vector]) -> bytes:
        return write(judged.scores(vectors))

    requests = as_requests(judged.encoded, read_priority(fields), call)
    return VectorJob(call.id, requests, answer, fields.unknown(known))
