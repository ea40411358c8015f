"""The golden bytes through the unmodified OpenAI SDK, as a client would read them."""

import httpx2
import openai
import pytest

from tests.golden.scenarios import HERE, TEXT

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client():
    """An SDK client whose server answers with one golden file."""
    opened = []

    def serve(name):
        kind = "text/event-stream" if name.endswith(".sse") else "application/json"
        headers = {"content-type": kind}

        def answer(_request):
            return httpx2.Response(200, headers=headers, content=(HERE / name).read_bytes())

        http = httpx2.Client(transport=httpx2.MockTransport(answer))
        opened.append(
            openai.OpenAI(base_url="http://test/v1", api_key="x", http_client=http, max_retries=0)
        )
        return opened[-1]

    yield serve
    for each in opened:
        each.close()


def test_the_stream_adds_up(client):
    """Raw chunks: text, finish and usage."""
    stream = client("chat.sse").chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == TEXT
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 1


@pytest.mark.parametrize("name", ["chat.sse", "chat_two_choices.sse", "chat_logprobs.sse"])
def test_the_stream_helper_accumulates(client, name):
    """The helper asserts order of roles, choices and finishes by itself."""
    with client(name).chat.completions.stream(model="tiny", messages=MESSAGES) as stream:
        stream.until_done()
        final = stream.current_completion_snapshot
    assert [choice.message.role for choice in final.choices] == ["assistant"] * len(final.choices)
    assert all(choice.finish_reason for choice in final.choices)
    assert (final.usage is not None) == (name == "chat.sse")


CALLED = [("f", '{"a": 12}'), ("g", "{}")]


def calls_of(message):
    """Names and arguments; every call has its own id and the one type there is."""
    calls = message.tool_calls or []
    assert len({call.id for call in calls}) == len(calls)
    assert {call.type for call in calls} <= {"function"}
    return [(call.function.name, call.function.arguments) for call in calls]


@pytest.mark.parametrize(
    ("name", "finish", "called", "content"),
    [
        ("chat_tools.sse", "tool_calls", CALLED, "hello"),
        ("chat_tools_named.sse", "stop", CALLED[1:], None),
        ("chat_tools_one.sse", "tool_calls", CALLED[:1], None),
        ("chat_tools_form.sse", "stop", [], '{"a": "<tool_call> 1"}'),
    ],
)
def test_the_stream_helper_accumulates_calls(client, name, finish, called, content):
    """Ids, names and types once, arguments in pieces, a dense index."""
    with client(name).chat.completions.stream(model="tiny", messages=MESSAGES) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    choice = final.choices[0]
    assert choice.finish_reason == finish
    assert calls_of(choice.message) == called
    assert (choice.message.content or None) == content
    done = [kind for kind in kinds if kind == "tool_calls.function.arguments.done"]
    assert len(done) == len(called)


def test_a_call_that_is_cut_off_is_no_call_that_ended(client):
    """The helper raises for the length; the raw stream shows what there was."""
    open_ = client("chat_tools_cut.sse").chat.completions
    opened = open_.stream(model="tiny", messages=MESSAGES)
    with opened as stream, pytest.raises(openai.LengthFinishReasonError):
        stream.get_final_completion()
    chunks = list(open_.create(model="tiny", messages=MESSAGES, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("name", "finish", "called"),
    [("chat_tools.json", "tool_calls", CALLED), ("chat_tools_named.json", "stop", CALLED[1:])],
)
def test_the_folded_calls_are_read(client, name, finish, called):
    """The same answer at once; content is null where there is none."""
    choice = client(name).chat.completions.create(model="tiny", messages=MESSAGES).choices[0]
    assert choice.finish_reason == finish
    assert calls_of(choice.message) == called
    assert choice.message.content == ("hello" if len(called) == 2 else None)


def test_the_folded_answer_is_read(client):
    """Text, finish, usage."""
    answer = client("chat.json").chat.completions.create(model="tiny", messages=MESSAGES)
    assert answer.choices[0].message.content == TEXT
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_failure_after_the_first_token_raises(client):
    """Never taken for success."""
    stream = client("chat_failure.sse").chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True
    )
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "engine_died"


def test_text_completions_are_read(client):
    """Streamed and folded, with logprobs."""
    stream = client("completion.sse").completions.create(model="tiny", prompt="x", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == TEXT
    answer = client("completion_logprobs.json").completions.create(model="tiny", prompt="x")
    assert answer.choices[0].logprobs.tokens == ["hello", " n", "é"]


def test_models_are_read(client):
    """The list, and one by a name with a slash."""
    assert [model.id for model in client("models.json").models.list()] == ["tiny", "org/tiny"]
    assert client("model.json").models.retrieve("org/tiny").id == "org/tiny"
