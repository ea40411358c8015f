"""The stock openai-python client and refusals: typed exceptions, and retries as it is told."""

import threading
import time

import openai
import pytest

from gateway.setting_kinds import Secret
from tests.support.live import chat, eventually, ledger_opener, live, test_settings

KEY = "sk-test-key"


@pytest.fixture(scope="module")
def server():
    with live(test_settings(api_key=(Secret(KEY),))) as server:
        yield server


@pytest.fixture
def sdk(server):
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
        yield client


def test_errors_are_typed(sdk, server):
    """Each status is its own exception, with code and param filled in."""
    with pytest.raises(openai.BadRequestError) as bad:
        sdk.chat.completions.create(**chat(temperature=9))
    assert bad.value.param == "temperature"
    assert isinstance(bad.value.code, str)
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.chat.completions.create(**{**chat(), "model": "gpt-5"})
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("no/such-model")
    with (
        openai.OpenAI(base_url=server.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as unknown,
    ):
        stranger.models.list()
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError) as long:
        sdk.chat.completions.create(**chat("word " * 20_000, stream=True))
    assert long.value.code == "context_length_exceeded"


@pytest.fixture
def full_server():
    """One place, taken by a stream that stands still until `may_step` is set."""
    with (
        live(test_settings(max_running=1, max_queued_requests=0)) as server,
        openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as client,
    ):
        server.runner.may_step.clear()
        stream = client.chat.completions.create(**chat(stream=True))
        next(stream)
        yield server
        server.runner.may_step.set()
        list(stream)


def test_a_full_queue_is_a_rate_limit_error(full_server):
    """With a code and a time to come back."""
    with (
        openai.OpenAI(base_url=full_server.url, api_key="x", max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as refusal,
    ):
        client.chat.completions.create(**chat())
    assert refusal.value.code == "queue_full"
    assert float(refusal.value.response.headers["retry-after"]) >= 1


def test_the_retry_header_is_obeyed(full_server):
    """The SDK waits as long as it was told, not its own half second, and gets its answer."""
    threading.Timer(0.2, full_server.runner.may_step.set).start()
    with openai.OpenAI(base_url=full_server.url, api_key="x", max_retries=3) as client:
        began = time.monotonic()
        assert client.chat.completions.create(**chat()).choices
        assert 0.95 < time.monotonic() - began < 5


def test_a_client_fault_is_not_retried(server):
    """`x-should-retry: false`: one hit, whatever the client's retry count."""
    metrics = server.process.parts.metrics.registry
    labels = {"route": "/v1/chat/completions", "status": "400"}

    def refusals():
        return metrics.get_sample_value("penstock_requests_total", labels) or 0

    before = refusals()
    with (
        openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=5) as client,
        pytest.raises(openai.BadRequestError),
    ):
        client.chat.completions.create(**chat(temperature=9))
    eventually(lambda: refusals() == before + 1)


def test_a_loading_server_is_waited_for():
    """503 with Retry-After until the model is there: the SDK's own retries reach it."""
    runners = []

    def slow(*args):
        time.sleep(0.5)  # what loading is
        return ledger_opener(runners, *args)

    with (
        live(test_settings(), wait=False, opener=slow) as server,
        openai.OpenAI(base_url=server.url, api_key="x", max_retries=5) as client,
    ):
        assert client.chat.completions.create(**chat()).choices
