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
