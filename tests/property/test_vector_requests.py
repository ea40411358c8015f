"""Whatever a client sends to the vector and token routes is answered or refused by name."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_compat.embeddings.lower import lower_embeddings
from openai_compat.embeddings.schema import KNOWN as EMBEDDING_FIELDS
from openai_compat.errors import RequestRejected
from openai_compat.scoring.lower import lower_rerank, lower_score
from openai_compat.scoring.schema import RERANK_FIELDS, SCORE_FIELDS
from openai_compat.tokens.lower import detokenize, render_chat, tokenize
from tests.support.tokenizers import CALL, served_model
from tests.support.vector_models import SIZE, cross_encoder, vector_model

TOKEN_FIELDS = ("messages", "prompt", "tokens", "tools", "add_special_tokens", "return_token_strs")
MODELS = {"embeds": vector_model(), "ranks": cross_encoder(), "chats": served_model()}
ROUTES = {
    lower_embeddings: EMBEDDING_FIELDS,
    lower_rerank: RERANK_FIELDS,
    lower_score: SCORE_FIELDS,
    tokenize: TOKEN_FIELDS,
    detokenize: TOKEN_FIELDS,
    render_chat: TOKEN_FIELDS,
}

words = st.lists(st.sampled_from(["w5", "w6", "", "other", "é🌊"]), max_size=6).map(" ".join)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 600), st.floats(allow_nan=False), words,
    st.sampled_from(["float", "base64", "left", "right", "query"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.sampled_from(["text", "role", "content", "x"]), inner, max_size=3),
    ),
    max_leaves=12,
)


def bodies(fields):
    return st.dictionaries(st.sampled_from(sorted(fields)), values, max_size=6)


@pytest.mark.parametrize("lower", ROUTES, ids=lambda lower: lower.__name__)
@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_body_is_answered_or_refused_by_name(lower, model, data):
    """No other exception, prompts within the model, and a body of strict JSON."""
    served = MODELS[model]
    body = {**data.draw(bodies(ROUTES[lower])), "model": "tiny"}
    try:
        found = lower(body, served, CALL)
    except RequestRejected:
        return
    if not hasattr(found, "answer"):
        json.loads(found.body)
        return
    assert found.requests
    for request in found.requests:
        assert 0 < len(request.prompt) <= served.info.max_context
        assert all(0 <= token < served.info.vocab_size for token in request.prompt)
        assert 0 <= request.second < len(request.prompt)
    size = SIZE if served.info.embeds else 1
    vectors = [[0.5] * size for _ in found.requests]
    assert json.loads(found.answer(vectors))["usage"]["prompt_tokens"] == found.prompt_tokens
