"""Rerank and score requests: pairs, fields, order; by a cross-encoder and by embeddings."""

import json
import math

import numpy as np
import pytest

from openai_compat.errors import RequestRejected
from openai_compat.scoring.lower import lower_rerank, lower_score
from openai_compat.scoring.schema import (
    MAX_DOCUMENTS,
    RERANK_FIELDS,
    RERANK_UNSUPPORTED,
    SCORE_FIELDS,
    SCORE_UNSUPPORTED,
)
from tests.support.tokenizers import served_model
from tests.support.vector_models import CALL, PROMPTS, cross_encoder, vector_model
from tests.support.words import CLS, SEP

RANKER, EMBEDDER = cross_encoder(), vector_model()
DOCUMENTS = ["w7", "w8 w9", "w10"]


def rerank(model=RANKER, **fields):
    body = {"model": "tiny", "query": "w5 w6", "documents": DOCUMENTS, **fields}
    return lower_rerank(body, model, CALL)


def score(model=RANKER, **fields):
    body = {"model": "tiny", "text_1": "w5", "text_2": DOCUMENTS} | fields
    return lower_score(body, model, CALL)


def prompts_of(job):
    return [(list(request.prompt), request.second) for request in job.requests]


def refusal(lower, **fields):
    with pytest.raises(RequestRejected) as caught:
        lower(**fields)
    return caught.value.reply


def results(job, vectors):
    return json.loads(job.answer(vectors))["results"]


def test_a_cross_encoder_reads_each_pair_at_once():
    """[CLS] query [SEP] document [SEP], and where the document begins."""
    assert prompts_of(rerank()) == [
        ([CLS, 5, 6, SEP, 7, SEP], 4),
        ([CLS, 5, 6, SEP, 8, 9, SEP], 4),
        ([CLS, 5, 6, SEP, 10, SEP], 4),
    ]


def test_an_embedding_model_reads_each_text_once():
    """The query, then the documents, each alone."""
    assert prompts_of(rerank(EMBEDDER)) == [
        ([CLS, 5, 6, SEP], 0),
        ([CLS, 7, SEP], 0),
        ([CLS, 8, 9, SEP], 0),
        ([CLS, 10, SEP], 0),
    ]


def test_an_embedding_model_gets_its_own_prompts():
    """One for what is searched with, one for what is searched."""
    prompts = [tokens for tokens, _ in prompts_of(rerank(vector_model(prompts=PROMPTS)))]
    assert [tokens[1] for tokens in prompts] == [100, 200, 200, 200]


def test_documents_come_best_first_with_their_places():
    """Equal ones in the order in which they came; the score is the logit's sigmoid."""
    found = results(rerank(), [[-1.0], [2.0], [-1.0]])
    assert [result["index"] for result in found] == [1, 0, 2]
    assert found[0]["relevance_score"] == pytest.approx(1 / (1 + math.exp(-2)))
    assert found[1]["relevance_score"] == found[2]["relevance_score"]
    assert [result["document"]["text"] for result in found] == ["w8 w9", "w7", "w10"]


@pytest.mark.parametrize("logit", [1000.0, -1000.0])
def test_the_sigmoid_has_no_overflow(logit):
    """Nor does it leave 0 to 1."""
    assert results(rerank(documents=["w7"]), [[logit]])[0]["relevance_score"] == (logit > 0)


def test_logits_are_told_as_they_are_where_that_is_asked_for():
    """use_activation false; only a cross-encoder has logits."""
    found = results(rerank(use_activation=False), [[-1.0], [2.0], [0.5]])
    assert [result["relevance_score"] for result in found] == [2.0, 0.5, -1.0]
    reply = refusal(rerank, model=EMBEDDER, use_activation=False)
    assert (reply.param, reply.code) == ("use_activation", "unsupported_parameter")


def test_the_angle_of_vectors_is_the_score():
    """Whatever their lengths."""
    query, same, across, against = [3.0, 0.0], [0.1, 0.0], [0.0, 9.0], [-2.0, 0.0]
    found = results(rerank(EMBEDDER), [query, across, same, against])
    assert [(each["index"], each["relevance_score"]) for each in found] == [(1, 1), (0, 0), (2, -1)]


def test_a_vector_of_nothing_fits_nothing():
    """No division by its length."""
    assert results(rerank(EMBEDDER, documents=["w7"]), [[0.0], [1.0]])[0]["relevance_score"] == 0


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (0, 3), (1, 1), (2, 2), (99, 3)])
def test_the_best_few_are_enough_where_asked(top_n, count):
    """0 and nothing mean all, as in vLLM."""
    assert len(results(rerank(top_n=top_n), [[0.0], [1.0], [2.0]])) == count


def test_documents_are_repeated_as_they_came_unless_unwanted():
    """Also where they were objects, or were shortened."""
    documents = [{"text": "w7 w8"}, "w9"]
    found = results(rerank(documents=documents, max_tokens_per_doc=1), [[1.0], [0.0]])
    assert [result["document"] for result in found] == [{"text": "w7 w8"}, {"text": "w9"}]
    found = results(rerank(return_documents=False), [[1.0], [0.0], [2.0]])
    assert all("document" not in result for result in found)


def test_documents_are_shortened_where_asked():
    """Cohere's max_tokens_per_doc: the first so many tokens of each."""
    job = rerank(documents=["w7 w8 w9", "w10"], max_tokens_per_doc=2)
    assert [tokens for tokens, _ in prompts_of(job)] == [
        [CLS, 5, 6, SEP, 7, 8, SEP],
        [CLS, 5, 6, SEP, 10, SEP],
    ]


def test_the_answer_counts_every_token():
    """In OpenAI's, Jina's and Cohere's places."""
    body = json.loads(rerank().answer([[0.0]] * 3))
    assert body["id"] == "rerank-abc123"
    assert body["usage"] == {"prompt_tokens": 19, "total_tokens": 19}
    assert body["meta"]["tokens"] == {"input_tokens": 19, "output_tokens": 0}


@pytest.mark.parametrize("lower", [rerank, score])
def test_a_pair_that_is_too_long_is_refused(lower):
    """By the place of its second text; or only that is cut, where asked."""
    name = "documents" if lower is rerank else "text_2"
    reply = refusal(lower, **{name: ["w7", "w8 " * 12]})
    assert (reply.code, reply.param) == ("context_length_exceeded", f"{name}[1]")
    job = lower(**{name: ["w7", "w8 " * 12]}, truncate_prompt_tokens=-1)
    assert len(job.requests[1].prompt) == 12
    assert job.requests[1].prompt[:2] == (CLS, 5)


def test_a_long_query_is_refused_before_it_meets_any_document(monkeypatch):
    """It would be tokenised a thousand times: the first text alone decides."""
    seen = []
    tokenizer = type(RANKER.tokenizer)
    encode = tokenizer.encode_batch

    def counting(self, inputs, **options):
        seen.extend(inputs)
        return encode(self, inputs, **options)

    monkeypatch.setattr(tokenizer, "encode_batch", counting)
    reply = refusal(rerank, query="w5 " * 5000, documents=["w7"] * 1000, truncate_prompt_tokens=-1)
    assert (reply.code, reply.param) == ("context_length_exceeded", "query")
    assert len(seen) == 1


def test_a_cut_that_cannot_be_kept_is_refused():
    """The first text is never cut."""
    reply = refusal(rerank, truncate_prompt_tokens=4)
    assert reply.param == "truncate_prompt_tokens"


@pytest.mark.parametrize(
    ("fields", "firsts"),
    [
        ({}, [5, 5, 5]),
        ({"text_1": ["w5"]}, [5, 5, 5]),
        ({"text_1": ["w20", "w21", "w22"]}, [20, 21, 22]),
        ({"text_2": "w7"}, [5]),
    ],
    ids=["one-to-many", "one-of-many", "many-to-many", "one-to-one"],
)
def test_scores_pair_one_to_many_or_side_by_side(fields, firsts):
    """As vLLM pairs them."""
    assert [tokens[1] for tokens, _ in prompts_of(score(**fields))] == firsts


def test_an_embedding_model_scores_side_by_side():
    """Each pair by its own two vectors."""
    job = score(EMBEDDER, text_1=["w20", "w21", "w22"])
    vectors = [*np.eye(3), *np.eye(3)[[0, 2, 2]]]
    scores = [entry["score"] for entry in json.loads(job.answer(vectors))["data"]]
    assert scores == [1, 0, 1]


@pytest.mark.parametrize(
    "names",
    [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")],
)
def test_the_sides_have_several_names(names):
    """All of vLLM's."""
    sides = {"text_1": None, "text_2": None, names[0]: "w5", names[1]: ["w7", "w8"]}
    job = score(**sides)
    body = json.loads(job.answer([[0.0], [1.0]]))
    assert [*body] == ["id", "object", "created", "model", "data", "usage"]
    assert [*body["data"][1]] == ["index", "object", "score"]
    assert job.ignored == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text_2": None}, "text_2"),
        ({"text_1": None}, "text_1"),
        ({"text_1": None, "text_2": None}, "text_1"),
        ({"queries": "w5"}, "queries"),
        ({"text_1": ["w5", "w6"]}, "text_1"),
        ({"text_1": []}, "text_1"),
        ({"text_2": ["w5", 7]}, "text_2[1]"),
        ({"text_2": [["w5"]]}, "text_2[0]"),
        ({"text_2": ["w5"] * (MAX_DOCUMENTS + 1)}, "text_2"),
    ],
)
def test_sides_that_do_not_pair_are_refused(fields, param):
    """By name."""
    reply = refusal(score, **fields)
    assert (reply.status, reply.param) == (400, param)


SHARED = {
    "priority": ([0, 5], [1.5]),
    "truncate_prompt_tokens": ([-1, 12], [0, 13]),
    "truncation_side": (["left", "right"], ["both"]),
    "use_activation": ([True, False], [1]),
    "user": (["me"], [7]),
    "activation": ([True], [False]),
    "cache_salt": ([], ["mine"]),
    "chat_template": ([], ["{{ x }}"]),
    "instruction": ([], ["judge"]),
    "max_chunks_per_doc": ([], [3]),
    "mm_processor_kwargs": ([{}], [{"a": 1}]),
    "padding": (["do_not_pad"], ["max_length"]),
    "return_embeddings": ([False], [True]),
    "truncation": ([False], [True]),
}
OF_RERANK = {
    "documents": ([["w7", {"text": "w8"}], "w7"], [[], [7], [{"title": "w7"}], [{"text": 7}], 7]),
    "max_tokens_per_doc": ([1, 4096], [0, "2"]),
    "query": (["w5", {"text": "w5"}], [7, ["w5"]]),
    "rank_fields": ([[], ["text"]], [["title"]]),
    "return_documents": ([True, False], ["no"]),
    "top_n": ([0, 1], [-1, 1.0]),
}
OF_SCORE = {"encoding_format": (["float"], ["base64"])}
ROWS = [(rerank, SHARED | OF_RERANK), (score, SHARED | OF_SCORE)]
WORKS = [(low, n, v) for low, rows in ROWS for n, (good, _) in rows.items() for v in good]
REFUSED = [(low, n, v) for low, rows in ROWS for n, (_, bad) in rows.items() for v in bad]


def test_every_known_field_has_a_row():
    """A field cannot be added without saying what it takes."""
    assert (SHARED | OF_RERANK).keys() | {"model"} == RERANK_FIELDS | RERANK_UNSUPPORTED.keys()
    sides = {"text_1", "text_2", "queries", "documents", "items", "data_1", "data_2", "model"}
    assert (SHARED | OF_SCORE).keys() | sides == SCORE_FIELDS | SCORE_UNSUPPORTED.keys()


@pytest.mark.parametrize(("lower", "name", "value"), WORKS)
def test_a_field_works(lower, name, value):
    """Nothing known is reported as ignored."""
    assert lower(**{name: value}).ignored == ()


@pytest.mark.parametrize(("lower", "name", "value"), REFUSED)
def test_a_field_is_refused_by_name(lower, name, value):
    """400 naming the field or the place in it."""
    reply = refusal(lower, **{name: value})
    assert reply.status == 400
    assert reply.param.partition("[")[0] == name


@pytest.mark.parametrize("lower", [rerank, score])
def test_unknown_fields_are_told(lower):
    """They become x-ignored-params."""
    assert lower(colour="blue").ignored == ("colour",)


@pytest.mark.parametrize("lower", [rerank, score])
def test_a_model_that_compares_nothing_says_so(lower):
    """400 model_does_not_rank."""
    reply = refusal(lower, model=served_model())
    assert (reply.status, reply.code, reply.param) == (400, "model_does_not_rank", "model")
