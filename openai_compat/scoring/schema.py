"""The fields and texts of rerank and score requests: known, neutral, refused."""

from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.scoring.pairs import Side
from openai_compat.texts import CUT_FIELDS
from openai_compat.unsupported import Neutral

MAX_DOCUMENTS = 1000
MAX_USER_CHARS = 512

_SHARED = CUT_FIELDS | {"model", "priority", "use_activation", "user"}

# How vLLM lets the two sides of a score be named.
SIDES = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)

RERANK_FIELDS = _SHARED | {"documents", "max_tokens_per_doc", "query", "return_documents", "top_n"}
SCORE_FIELDS = _SHARED | {name for names in SIDES for name in names}

# Extensions of vLLM, Cohere and Jina, whose neutral values ask for what is done anyway.
_NEUTRAL: Neutral = {
    "activation": (True,),
    "cache_salt": (),
    "chat_template": (),
    "instruction": (),
    "max_chunks_per_doc": (),
    "mm_processor_kwargs": ({},),
    "padding": ("do_not_pad",),
    "return_embeddings": (False,),
    "truncation": (False,),
}
RERANK_UNSUPPORTED: Neutral = {**_NEUTRAL, "rank_fields": ([], ["text"])}
SCORE_UNSUPPORTED: Neutral = {**_NEUTRAL, "encoding_format": ("float",)}


def read_rerank_sides(fields: Fields) -> tuple[Side, Side]:
    """The query and the documents. Raises `RequestRejected` naming the place."""
    query = Side([_text(fields.raw("query"), fields.param("query"))], [fields.param("query")])
    return query, _side(fields, "documents")


def read_score_sides(fields: Fields) -> tuple[Side, Side]:
    """The two sides under any of their names: one to many, or as many on each."""
    given = [names for names in SIDES if any(fields.raw(name) is not None for name in names)]
    whole = [names for names in given if all(fields.raw(name) is not None for name in names)]
    first_name, second_name = (whole or given or SIDES)[0]
    stray = sorted({name for names in given for name in names} - {first_name, second_name})
    stray = [name for name in stray if fields.raw(name) is not None]
    if stray:
        raise RequestRejected(
            f"'{stray[0]}' cannot be used together with '{first_name}' and '{second_name}'.",
            param=stray[0],
        )
    first, second = _side(fields, first_name), _side(fields, second_name)
    if len(first.texts) not in (1, len(second.texts)):
        wanted = f"1 text, or as many as '{second_name}' ({len(second.texts)})"
        raise wrong(fields.param(first_name), wanted, fields.raw(first_name))
    return first, second


def _side(fields: Fields, name: str) -> Side:
    """A text or an array of them; each a string, or an object with `text`."""
    given, param = fields.raw(name), fields.param(name)
    if isinstance(given, (str, dict)):
        return Side([_text(given, param)], [param])
    if not isinstance(given, list) or not 0 < len(given) <= MAX_DOCUMENTS:
        raise wrong(param, f"an array of 1 to {MAX_DOCUMENTS} texts", given)
    params = [f"{param}[{place}]" for place in range(len(given))]
    texts = [_text(value, where) for value, where in zip(given, params, strict=True)]
    return Side(texts, params)


def _text(value: object, param: str) -> str:
    if isinstance(value, dict) and isinstance(value.get("text"), str) and len(value) == 1:
        return str(value["text"])
    if not isinstance(value, str):
        raise wrong(param, "a string, or an object with nothing but `text`", value)
    return value
