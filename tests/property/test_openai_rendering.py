"""The answer does not depend on how the engine's events are cut or interleaved."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.api import Finish, FinishReason, TokenEvent, TokenLogprobs
from openai_compat.chat.lower import lower_chat
from openai_compat.completions.lower import lower_completion
from tests.support.tokenizers import CALL, EOS, sentencepiece, served_model

BYTE_LEVEL = served_model()
EOS_ID = BYTE_LEVEL.tokenizer.token_id(EOS)
SENTENCEPIECE = served_model(backend=sentencepiece())
TEXTS = st.text("helo wrdEND né😀\n", max_size=24)
STOPS = st.lists(st.sampled_from(["END", "o w", "l", "\n\n", "é"]), max_size=3)


SHOWING = st.fixed_dictionaries(
    {},
    optional={
        "include_stop_str_in_output": st.booleans(),
        "skip_special_tokens": st.booleans(),
        "return_token_ids": st.booleans(),
    },
)


@st.composite
def answers(draw):
    """A model, and for each choice its tokens and how it ends."""
    model = draw(st.sampled_from([BYTE_LEVEL, SENTENCEPIECE]))
    choices = []
    for _ in range(draw(st.integers(1, 3))):
        tokens = model.tokenizer.encode(draw(TEXTS), special=False)
        if model is BYTE_LEVEL and draw(st.booleans()):
            choices.append(([*tokens, EOS_ID], Finish(FinishReason.STOP, 0, stop_token=EOS_ID)))
        else:
            tokens = tokens[: draw(st.integers(0, len(tokens)))]  # perhaps half a character
            choices.append((tokens, Finish(FinishReason.LENGTH, 0)))
    return model, choices


def whole(choices, *, logprobs):
    """One event per choice, in order: the plainest way to deliver an answer."""
    return [event(choice, tokens, logprobs, end) for choice, (tokens, end) in enumerate(choices)]


def event(choice, tokens, logprobs, end=None):
    given_logprobs = [TokenLogprobs(-0.5, ((token, -0.5),)) for token in tokens]
    return TokenEvent(choice, list(tokens), 3, given_logprobs if logprobs else None, end)


def scattered(draw, choices, *, logprobs):
    """The same answer in any chunks and any interleaving."""
    queues = []
    for choice, (tokens, end) in enumerate(choices):
        cuts = sorted(draw(st.lists(st.integers(0, max(0, len(tokens) - 1)), max_size=5)))
        edges = [0, *cuts]
        queue = [event(choice, tokens[a:b], logprobs) for a, b in zip(edges, cuts, strict=False)]
        queues.append([*queue, event(choice, tokens[edges[-1] :], logprobs, end)])
    events = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        events.append(queue.pop(0))
    return events


def chat(model, choices, stops, **fields):
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "tiny", "messages": messages, "n": len(choices), "stop": stops, **fields}
    return lower_chat(body, model, CALL).renderer


def folded(renderer, events):
    for each in events:
        renderer.feed(0, each)
    return renderer.fold()


def stream_of(renderer, events):
    """Text, reasons, logprobs and ids per choice, and usage, read back from the frames."""
    frames = renderer.begin() + b"".join(renderer.feed(0, each).frames for each in events)
    lines = (frames + renderer.finish()).split(b"\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line and line != b"data: [DONE]"]
    usage = chunks.pop()["usage"]
    texts, reasons, entries, ids = {}, {}, {}, {}
    for chunk in chunks:
        choice = chunk["choices"][0]
        index = choice["index"]
        texts[index] = texts.get(index, "") + choice["delta"].get("content", "")
        entries.setdefault(index, []).extend((choice["logprobs"] or {}).get("content", []))
        ids.setdefault(index, []).extend(choice.get("token_ids", []))
        assert index not in reasons, "a chunk after the finish"
        if choice["finish_reason"]:
            reasons[index] = choice["finish_reason"]
    return texts, reasons, entries, ids, usage


@settings(max_examples=300, deadline=None)
@given(answers(), STOPS, st.booleans(), SHOWING, st.data())
def test_any_delivery_folds_to_the_same_answer(answer, stops, logprobs, showing, data):
    """Chunks and interleaving leave text, reasons, logprobs, ids and usage as they are."""
    model, choices = answer
    fields = {"logprobs": logprobs, **showing}
    plain = folded(chat(model, choices, stops, **fields), whole(choices, logprobs=logprobs))
    events = scattered(data.draw, choices, logprobs=logprobs)
    assert folded(chat(model, choices, stops, **fields), events) == plain


@settings(max_examples=300, deadline=None)
@given(answers(), STOPS, st.booleans(), SHOWING, st.data())
def test_a_stream_adds_up_to_the_folded_answer(answer, stops, logprobs, showing, data):
    """Streaming and not streaming are one thing cut differently."""
    model, choices = answer
    renderer = chat(model, choices, stops, logprobs=logprobs, **showing)
    body = json.loads(folded(renderer, whole(choices, logprobs=logprobs)))
    options = {"include_usage": True, "include_obfuscation": data.draw(st.booleans())}
    fields = {"stream": True, "stream_options": options, "logprobs": logprobs, **showing}
    events = scattered(data.draw, choices, logprobs=logprobs)
    texts, reasons, entries, ids, usage = stream_of(chat(model, choices, stops, **fields), events)
    for choice in body["choices"]:
        index = choice["index"]
        assert texts[index] == choice["message"]["content"]
        assert ids[index] == choice.get("token_ids", [])
        assert reasons[index] == choice["finish_reason"]
        assert entries[index] == ((choice["logprobs"] or {}).get("content", []))
    assert usage == body["usage"]


@settings(max_examples=200, deadline=None)
@given(answers())
def test_without_stop_strings_the_text_is_the_decode_of_the_tokens(answer):
    """Nothing is lost or added between the engine's tokens and the client's text."""
    model, choices = answer
    body = json.loads(folded(chat(model, choices, []), whole(choices, logprobs=False)))
    for choice, (tokens, _) in zip(body["choices"], choices, strict=True):
        assert choice["message"]["content"] == model.tokenizer.decode(tokens)
    assert body["usage"]["completion_tokens"] == sum(len(tokens) for tokens, _ in choices)


@settings(max_examples=200, deadline=None)
@given(answers(), STOPS, SHOWING)
def test_as_many_ids_are_told_as_are_charged(answer, stops, showing):
    """Whatever ended an answer, and whether that is shown."""
    model, choices = answer
    fields = {**showing, "return_token_ids": True}
    body = json.loads(folded(chat(model, choices, stops, **fields), whole(choices, logprobs=False)))
    told = [token for choice in body["choices"] for token in choice["token_ids"]]
    assert len(told) == body["usage"]["completion_tokens"]


@settings(max_examples=100, deadline=None)
@given(TEXTS, STOPS)
def test_token_offsets_of_text_completions_point_into_the_text(text, stops):
    """Each token of whole characters stands in the text where its offset says."""
    tokens = BYTE_LEVEL.tokenizer.encode(text, special=False)
    body = {"model": "tiny", "prompt": "hello", "logprobs": 1, "stop": stops}
    renderer = lower_completion(body, BYTE_LEVEL, CALL).renderer
    events = [event(0, tokens, logprobs=True, end=Finish(FinishReason.LENGTH, 0))]
    choice = json.loads(folded(renderer, events))["choices"][0]
    logprobs = choice["logprobs"] or {"tokens": [], "text_offset": []}
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        if "\ufffd" not in token:
            assert text[offset : offset + len(token)] == token
