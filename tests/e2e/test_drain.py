"""Told to stop: no new calls, running ones end, what cannot end in time is cut with an error."""

import asyncio
import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import httpx2
import openai
import pytest

from engines import stepped
from engines.api import Capability
from gateway import serve
from gateway import server as gateway_server
from tests.support.live import Raw, chat, eventually, ledger_opener, live, test_settings


@pytest.fixture
def sdk():
    clients = []

    def connect(server):
        clients.append(openai.OpenAI(base_url=server.url, api_key="x", max_retries=0))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def health(server):
    response = httpx2.get(f"http://127.0.0.1:{server.port}/readyz")
    return response.status_code, response.json()["status"]


def test_a_drain_lets_running_streams_end(sdk):
    """Ready no more at once, new calls 503, the running one whole, exit code 0."""
    with live() as server:
        assert health(server) == (200, "ready")
        server.runner.may_step.clear()
        stream = sdk(server).chat.completions.create(**chat(max_tokens=50, stream=True))
        next(stream)
        waiting = threading.Thread(target=lambda: answers.append(whole(sdk(server))))
        answers = []
        waiting.start()
        eventually(lambda: server.serving.dispatcher.admission.sequences == 2)
        server.begin_exit()
        eventually(lambda: health(server) == (503, "draining"))
        with pytest.raises(openai.InternalServerError) as refusal:
            sdk(server).chat.completions.create(**chat())
        assert refusal.value.status_code == 503
        assert refusal.value.code == "draining"
        assert int(refusal.value.response.headers["retry-after"]) >= 1
        assert server.thread.is_alive()
        server.runner.may_step.set()
        assert list(stream)[-1].choices[0].finish_reason == "length"
        waiting.join(10)
        assert answers == ["length"]
        server.thread.join(10)
        assert server.exit_code == 0


def whole(client):
    return client.chat.completions.create(**chat(max_tokens=50)).choices[0].finish_reason


def test_what_does_not_end_in_time_is_cut_with_an_error(sdk):
    """A stock client raises: it can never take the part for the whole."""
    with live(test_settings(drain_timeout_s=0.2), step_s=0.01) as server:
        stream = sdk(server).chat.completions.create(**chat(max_tokens=1500, stream=True))
        next(stream)
        server.begin_exit()
        with pytest.raises(openai.APIError) as cut:
            list(stream)
        assert cut.value.code == "engine_unavailable"
        server.thread.join(10)
        assert server.exit_code == 0


def test_an_answer_that_does_not_end_in_time_is_503(sdk):
    """Nothing was sent yet: the client may go elsewhere."""
    with live(test_settings(drain_timeout_s=0.2), step_s=0.01) as server:
        seen = []

        def call():
            seen.append(
                httpx2.post(
                    f"{server.url}/chat/completions", json=chat(max_tokens=1500), timeout=20
                )
            )

        thread = threading.Thread(target=call)
        thread.start()
        eventually(lambda: server.load().running == 1)
        server.begin_exit()
        thread.join(10)
        assert seen[0].status_code == 503
        assert seen[0].headers["x-should-retry"] == "true"


def test_a_second_signal_ends_at_once():
    """Whatever still runs."""
    with live(test_settings(drain_timeout_s=60), step_s=0.01) as server, Raw(server.port) as raw:
        raw.send("POST", "/v1/chat/completions", chat(max_tokens=1500, stream=True))
        raw.read_until(b'{"content":"')
        server.begin_exit()
        eventually(lambda: health(server) == (503, "draining"))
        server.begin_exit()
        server.thread.join(10)
        assert not server.thread.is_alive()


def test_a_client_that_does_not_read_does_not_hold_up_the_end():
    """It was given its time; then its connection is aborted and the process leaves with 0."""
    settings = test_settings(drain_timeout_s=0.2, max_running=16)
    with live(settings, step_s=0.001) as server, Raw(server.port, receive_buffer=1024) as stuck:
        stuck.send("POST", "/v1/chat/completions", chat(max_tokens=400, n=8, stream=True))
        eventually(lambda: server.load().running == 8)
        eventually(lambda: server.load().running == 0)
        assert server.serving.dispatcher.admission.sequences == 8
        server.begin_exit()
        server.thread.join(15)
        assert server.exit_code == 0


def refusal_of(got):
    """The status, headers and error of one raw response."""
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head.lower(), json.loads(body)["error"]


def test_a_body_that_is_still_coming_is_refused():
    """At once and with everything that tells a client to go elsewhere."""
    with live(test_settings(drain_timeout_s=60, body_timeout_s=60)) as server:
        with Raw(server.port) as slow:
            slow.socket.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n"
                b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
            )
            eventually(lambda: server.process.parts.lifecycle._arrivals)
            server.begin_exit()
            status, head, error = refusal_of(slow.read_to_end()[0])
        assert (status, error["code"]) == (503, "draining")
        assert b"x-request-id: mine" in head
        assert b"retry-after: " in head
        server.thread.join(10)
        assert server.exit_code == 0


def test_a_grammar_that_is_still_checked_is_refused():
    """It may take longer than the drain, and its client would be cut off without a word."""

    class Slow:
        begun = False

        async def check(self, _source):
            self.begun = True
            await asyncio.sleep(60)

        async def close(self):
            """Nothing to free."""

    def opener(settings, report, on_death):
        opened = ledger_opener([], settings, report, on_death)
        info = replace(opened.engine.info, capabilities=frozenset(Capability))
        return replace(opened, checker=checker, model=replace(opened.model, info=info))

    checker, answers = Slow(), []
    with live(opener=opener) as server:
        body = {**chat(), "guided_regex": "a"}
        url = f"{server.url}/chat/completions"
        asking = threading.Thread(target=lambda: answers.append(httpx2.post(url, json=body)))
        asking.start()
        eventually(lambda: checker.begun)
        server.begin_exit()
        asking.join(10)
        assert [answer.status_code for answer in answers] == [503]
        assert answers[0].json()["error"]["code"] == "draining"


def test_a_request_that_cannot_start_in_time_is_refused(monkeypatch, caplog):
    """Cancelled by the end of the server, it still gets the nested 503; the log tells the cut."""
    entered, may_go = threading.Event(), threading.Event()

    def blocked(_):
        entered.set()
        may_go.wait(20)
        raise AssertionError("nobody waits for this any more")

    monkeypatch.setattr("gateway.rest.calls.parse_body", blocked)
    caplog.set_level("INFO")
    with live(test_settings(drain_timeout_s=0)) as server, Raw(server.port) as raw:
        try:
            raw.send("POST", "/v1/chat/completions", chat("x" * 10_000))
            assert entered.wait(10)
            server.begin_exit()
            status, head, error = refusal_of(raw.read_to_end()[0])
            server.thread.join(10)
        finally:
            may_go.set()
    assert (status, error["code"]) == (503, "draining")
    assert b"x-request-id: req-" in head
    told = [record.facts for record in caplog.records if record.message == "request"]
    assert [(facts["status"], facts["outcome"]) for facts in told] == [(503, "cut")]
    assert not [record for record in caplog.records if record.exc_info]


def test_a_stuck_device_is_left_with_an_exit_code(sdk, monkeypatch):
    """Its streams are told; a supervisor must not take this for a clean end."""
    monkeypatch.setattr("engines.stepped._LAST_STEP_S", 0.3)
    with live(test_settings(drain_timeout_s=0.1), step_s=0.01) as server:
        stream = sdk(server).chat.completions.create(**chat(max_tokens=1500, stream=True))
        next(stream)
        server.runner.may_step.clear()
        server.begin_exit()
        with pytest.raises(openai.APIError):
            list(stream)
        server.thread.join(10)
        server.runner.may_step.set()
        assert server.exit_code == 70


def test_the_documented_grace_period_is_enough():
    """For a stuck device and a client that does not read, both at once, with room to spare."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    grace_s = int(
        re.search(r"`terminationGracePeriodSeconds` to `drain_timeout_s` \+ (\d+)", text)[1]
    )
    closing_s = 2 * gateway_server._CLOSE_WITHIN_S  # by uvicorn, then by us
    assert stepped._LAST_STEP_S + serve._SEND_REST_S + closing_s <= grace_s - 2


def test_an_idle_server_ends_at_once():
    """Also with idle keep-alive connections open."""
    with live() as server, Raw(server.port) as idle:
        idle.send("GET", "/livez")
        idle.read_until(b"alive")
        server.begin_exit()
        server.thread.join(3)
        assert server.exit_code == 0


def test_a_loading_server_says_so_and_can_be_stopped():
    """The port is open; health tells the phase; calls get 503 with Retry-After."""
    may_load = threading.Event()

    def opener(settings, report, on_death):
        report("model weights")
        may_load.wait(20)
        raise AssertionError("stopped before it was loaded")

    with live(wait=False, opener=opener) as server:
        base = f"http://127.0.0.1:{server.port}"
        ready = eventually(
            lambda: (r := httpx2.get(f"{base}/readyz")).json()["phase"] == "model weights" and r
        )
        assert (ready.status_code, ready.json()["status"]) == (503, "loading")
        assert httpx2.get(f"{base}/livez").status_code == 200
        for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models")):
            refusal = httpx2.request(method, base + path)
            assert refusal.status_code == 503
            assert refusal.json()["error"]["code"] == "loading"
            assert "model weights" in refusal.json()["error"]["message"]
            assert int(refusal.headers["retry-after"]) >= 1
        server.begin_exit()
        server.thread.join(10)
        assert server.exit_code == 0
        may_load.set()


def test_a_rejected_model_ends_the_process():
    """Exit code 1; nothing serves for ever without a model."""
    from engines.errors import ModelRejected  # noqa: PLC0415 - raised here only

    def opener(settings, report, on_death):
        raise ModelRejected("config.json is missing")

    with live(wait=False, opener=opener) as server:
        server.thread.join(10)
        assert server.exit_code == 1
