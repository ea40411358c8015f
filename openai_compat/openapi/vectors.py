"""Embeddings, rerank and score, described."""

from openai_compat.embeddings.schema import KNOWN as EMBEDDING_FIELDS
from openai_compat.embeddings.schema import MAX_INPUTS, MAX_USER_CHARS
from openai_compat.embeddings.schema import UNSUPPORTED as EMBEDDING_UNSUPPORTED
from openai_compat.openapi.operations import JSON, About, Example, call, shown
from openai_compat.openapi.shapes import (
    Schema,
    answer,
    choice,
    flag,
    integer,
    items,
    record,
    ref,
    request,
    text,
    words,
)
from openai_compat.options import MAX_PRIORITY
from openai_compat.scoring.schema import (
    MAX_DOCUMENTS,
    RERANK_FIELDS,
    RERANK_UNSUPPORTED,
    SCORE_FIELDS,
    SCORE_UNSUPPORTED,
)

_MODEL = "penstock-tiny"
_MAX = 2**31 - 1
_TOKENS = items(integer(0), minItems=1)
_TEXT: Schema = {"anyOf": [text(), record({"text": text()}, required=("text",))]}
_TEXTS: Schema = {"anyOf": [_TEXT, items(_TEXT, minItems=1, maxItems=MAX_DOCUMENTS)]}

_SHARED: dict[str, Schema] = {
    "model": text("A served model or one of its aliases."),
    "priority": integer(-MAX_PRIORITY, MAX_PRIORITY, "Lower is served earlier."),
    "truncate_prompt_tokens": integer(
        -1, None, "Keep so many tokens of each text; -1: as many as the model takes."
    ),
    "truncation_side": choice("Where a text that is cut loses tokens.", "left", "right"),
    "user": text("A label of yours.", maxLength=MAX_USER_CHARS),
}
EMBEDDING_DESCRIBED: dict[str, Schema] = {
    **_SHARED,
    "input": {
        "anyOf": [
            text(),
            _TOKENS,
            items(text(), minItems=1, maxItems=MAX_INPUTS),
            items(_TOKENS, minItems=1, maxItems=MAX_INPUTS),
        ],
        "description": "A text or token ids, or several of one kind.",
    },
    "add_special_tokens": flag("Let the tokenizer add its own to texts.", default=True),
    "dimensions": integer(1, None, "Only the first so many numbers, at the length of the whole."),
    "encoding_format": choice("Numbers, or base64 of little-endian float32.", "float", "base64"),
    "prompt_name": text("Which of the model's own prompts goes before each text."),
}
_JUDGING: dict[str, Schema] = {
    **_SHARED,
    "use_activation": flag("False: a cross-encoder's logits as they are.", default=True),
}
RERANK_DESCRIBED: dict[str, Schema] = {
    **_JUDGING,
    "query": {**_TEXT, "description": "What the documents should fit."},
    "documents": {**_TEXTS, "description": "Texts, or objects with `text`."},
    "max_tokens_per_doc": integer(1, _MAX, "Keep the first so many tokens of each document."),
    "return_documents": flag("Repeat the documents in the results.", default=True),
    "top_n": integer(0, _MAX, "Only the best so many; 0: all."),
}
_SIDES = {
    "text_1": "One text, or as many as on the other side.",
    "text_2": "The texts to compare with it.",
    "queries": "`text_1` by another name, with `documents` or `items`.",
    "documents": "`text_2` by another name, with `queries`.",
    "items": "`text_2` by another name, with `queries`.",
    "data_1": "`text_1` by another name.",
    "data_2": "`text_2` by another name.",
}
SCORE_DESCRIBED: dict[str, Schema] = {
    **_JUDGING,
    **{name: {**_TEXTS, "description": doc} for name, doc in _SIDES.items()},
}

_NUMBER: Schema = {"type": "number"}
_USAGE = answer({"prompt_tokens": integer(0), "total_tokens": integer(0)})
_RESULT = {"index": integer(0), "relevance_score": _NUMBER, "document": answer({"text": text()})}
SCHEMAS: dict[str, Schema] = {
    "EmbeddingRequest": request(
        EMBEDDING_FIELDS, EMBEDDING_UNSUPPORTED, EMBEDDING_DESCRIBED, required=("model", "input")
    ),
    "RerankRequest": request(
        RERANK_FIELDS | RERANK_UNSUPPORTED.keys(),
        RERANK_UNSUPPORTED,
        RERANK_DESCRIBED,
        required=("model", "query", "documents"),
    ),
    "ScoreRequest": request(
        SCORE_FIELDS | SCORE_UNSUPPORTED.keys(),
        SCORE_UNSUPPORTED,
        SCORE_DESCRIBED,
        required=("model",),
    ),
    "EmbeddingList": answer(
        {
            "object": words("list"),
            "data": items(
                answer(
                    {
                        "object": words("embedding"),
                        "index": integer(0),
                        "embedding": {"anyOf": [items(_NUMBER), text()]},
                    }
                )
            ),
            "model": text("As the request named it."),
            "usage": _USAGE,
        }
    ),
    "Ranking": answer(
        {
            "id": text(),
            "model": text(),
            "results": items(answer(_RESULT, maybe=("document",)), "The best first."),
            "usage": _USAGE,
            "meta": answer(
                {"tokens": answer({"input_tokens": integer(0), "output_tokens": integer(0, 0)})}
            ),
        }
    ),
    "ScoreList": answer(
        {
            "id": text(),
            "object": words("list"),
            "created": integer(0, None, "Unix seconds."),
            "model": text(),
            "data": items(
                answer({"index": integer(0), "object": words("score"), "score": _NUMBER})
            ),
            "usage": _USAGE,
        }
    ),
}

_EMBEDDED = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
    "model": _MODEL,
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}
_RANKED = {
    "id": "rerank-4d1c",
    "model": _MODEL,
    "results": [{"index": 1, "relevance_score": 0.98, "document": {"text": "Rivers run."}}],
    "usage": {"prompt_tokens": 12, "total_tokens": 12},
    "meta": {"tokens": {"input_tokens": 12, "output_tokens": 0}},
}
_SCORED = {
    "id": "score-4d1c",
    "object": "list",
    "created": 1700000000,
    "model": _MODEL,
    "data": [{"index": 0, "object": "score", "score": 0.98}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
_PAIR = {"model": _MODEL, "query": "rivers", "documents": ["A fox.", "Rivers run."]}
PATHS: dict[str, Schema] = {
    "/v1/embeddings": {
        "post": call(
            About("createEmbeddings", "Vectors", "The vectors of texts", "OpenAI's embeddings."),
            request="EmbeddingRequest",
            examples={
                "text": Example("One text", {"model": _MODEL, "input": "Rivers run."}),
                "several": Example(
                    "Several, shortened, as base64",
                    {
                        "model": _MODEL,
                        "input": ["A fox.", "Rivers run."],
                        "dimensions": 32,
                        "encoding_format": "base64",
                    },
                ),
                "tokens": Example("Token ids", {"model": _MODEL, "input": [300, 301, 302]}),
                "refused": Example("No input", {"model": _MODEL}, status=400),
            },
            responses={JSON: shown(ref("EmbeddingList"), _EMBEDDED)},
        )
    },
    "/v1/rerank": {
        "post": call(
            About(
                "rerank",
                "Vectors",
                "Documents by how well they fit a query",
                "The shape of Jina and Cohere; `/v2/rerank` is the same. A cross-encoder judges"
                " each pair, an embedding model compares vectors by their cosine.",
            ),
            request="RerankRequest",
            examples={
                "plain": Example("Two documents", _PAIR),
                "best": Example(
                    "The best one, by its place", {**_PAIR, "top_n": 1, "return_documents": False}
                ),
                "refused": Example("No query", {"model": _MODEL}, status=400),
            },
            responses={JSON: shown(ref("Ranking"), _RANKED)},
        )
    },
    "/v1/score": {
        "post": call(
            About(
                "score",
                "Vectors",
                "How well pairs of texts fit",
                "The shape of vLLM: one text with each of many, or as many on both sides.",
            ),
            request="ScoreRequest",
            examples={
                "one": Example(
                    "One with each of many",
                    {"model": _MODEL, "text_1": "rivers", "text_2": ["A fox.", "Rivers run."]},
                ),
                "refused": Example("No texts", {"model": _MODEL}, status=400),
            },
            responses={JSON: shown(ref("ScoreList"), _SCORED)},
        )
    },
}
