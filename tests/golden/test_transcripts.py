"""Bytes on the wire, fixed; and every one of them read by OpenAI's own types."""

import json

import jsonschema_rs
import pytest
from openai.types import Completion, Embedding, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from openai_compat.openapi.document import document
from tests.golden.scenarios import HERE, SCENARIOS

TYPES = {
    "chat.completion.chunk": ChatCompletionChunk,
    "chat.completion": ChatCompletion,
    "text_completion": Completion,
    "model": Model,
    "embedding": Embedding,
}
STREAMS = [name for name in SCENARIOS if name.endswith(".sse")]
# Documented extras, some of them in answers to who asks as vLLM's clients do.
OURS = {"embedding_size", "max_model_len", "purposes", "reasoning", "reasoning_content"} | {
    "obfuscation",
    "prompt_logprobs",
    "prompt_token_ids",
    "token_ids",
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_wire_bytes_are_the_golden_ones(name):
    """A change of any byte is a decision, taken by changing the file."""
    assert SCENARIOS[name]() == (HERE / name).read_bytes()


def test_no_golden_file_is_left_over():
    """Every file has its scenario."""
    files = {path.name for path in HERE.iterdir() if path.suffix in (".sse", ".json")}
    assert files == set(SCENARIOS)


def events(name):
    """The JSON objects of a stream; checks the framing of each."""
    parts = (HERE / name).read_bytes().split(b"\n\n")
    assert parts.pop() == b""
    assert all(part.startswith(b"data: ") and b"\n" not in part for part in parts)
    data = [part.removeprefix(b"data: ") for part in parts]
    return [json.loads(value) for value in data if value != b"[DONE]"], data[-1]


def objects(name):
    if name.endswith(".sse"):
        return [value for value in events(name)[0] if "error" not in value]
    value = json.loads((HERE / name).read_bytes())
    return value["data"] if value["object"] == "list" else [value]


def extras(model):
    """Fields that OpenAI's types do not know, however deep."""
    if isinstance(model, list):
        return {name for item in model for name in extras(item)}
    if not hasattr(model, "model_fields_set"):
        return set()
    found = set(model.model_extra or ())
    return found.union(*(extras(value) for _, value in model))


def with_reason(value):
    """OpenAI sends nulls that its own types leave out: reasons in text completions, and the
    log-probability of a first token, which follows nothing.
    """
    if value["object"] == "text_completion":
        for choice in value["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
            told = choice["logprobs"]
            if told and told["token_logprobs"][0] is None:
                told["token_logprobs"][0], told["top_logprobs"][0] = 0.0, {}
    return value


@pytest.mark.parametrize("name", SCENARIOS)
def test_openais_types_read_every_object(name):
    """Parsed and dumped again each object is the same, with no field they do not know."""
    for value in map(with_reason, objects(name)):
        parsed = TYPES[value["object"]].model_validate(value, strict=True)
        assert extras(parsed) <= OURS
        assert parsed.model_dump(mode="json", exclude_unset=True) == value


DESCRIBED = {
    "chat.completion": "ChatCompletion",
    "chat.completion.chunk": "ChatCompletionChunk",
    "text_completion": "Completion",
}


@pytest.mark.parametrize("name", [n for n in SCENARIOS if n.startswith(("chat", "completion"))])
def test_every_object_is_as_our_own_document_says(name):
    """openapi.json knows each member, and no other."""
    components = document("0")["components"]
    for value in objects(name):
        kind = DESCRIBED[value["object"]]
        if kind == "Completion" and name.endswith(".sse"):
            kind = "CompletionChunk"
        schema = {"$ref": f"#/components/schemas/{kind}", "components": components}
        jsonschema_rs.Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "chat_failure.sse"])
def test_a_stream_is_role_text_finish_usage_done(name):
    """Roles in index order and once; one choice per chunk; a finish each; usage; [DONE]."""
    chunks, last = events(name)
    assert last == b"[DONE]"
    if not chunks[-1]["choices"]:
        assert chunks.pop()["usage"]["total_tokens"] > 0
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    indices = sorted({choice["index"] for choice in choices})
    if name.startswith("chat"):
        roles = [choice["index"] for choice in choices if "role" in choice["delta"]]
        assert roles == indices == [choice["index"] for choice in choices[: len(indices)]]
    ends = sorted(choice["index"] for choice in choices if choice["finish_reason"])
    assert ends == indices


def test_a_failure_is_a_nested_error_and_no_clean_end():
    """No [DONE] and no finish reason: the connection is aborted after it."""
    chunks, last = events("chat_failure.sse")
    assert json.loads(last) == chunks[-1]
    assert chunks[-1]["error"]["code"] == "engine_died"
    assert not any(choice["finish_reason"] for chunk in chunks[:-1] for choice in chunk["choices"])


def test_one_answer_has_one_identity():
    """id, created, model and fingerprint repeat on every chunk of a stream."""
    for name in STREAMS:
        repeated = {
            tuple(chunk[key] for key in ("id", "created", "model", "system_fingerprint"))
            for chunk in events(name)[0]
            if "error" not in chunk
        }
        assert len(repeated) == 1
