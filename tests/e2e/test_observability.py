"""Metrics tell the truth, logs tell no secrets."""

import io
import json
import logging

import httpx2
import pytest

from gateway.logs import configure_logging
from gateway.setting_kinds import Secret
from tests.support.live import MODEL, Raw, chat, eventually, live, test_settings

KEY = "sk-canary-key-3141"
CLIENTS = {"httpx2", "httpcore2"}
PROMPT = "canary prompt 2718"


@pytest.fixture
def log():
    """What the server's process would log at its lowest level; not what test clients log."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    configure_logging("debug", stream)
    root.handlers[0].addFilter(lambda record: record.name.partition(".")[0] not in CLIENTS)
    yield stream
    root.level, root.handlers[:] = before


@pytest.fixture
def server(log):
    with live(test_settings(api_key=(Secret(KEY),)), step_s=0.001) as server:
        yield server


def post(server, body, path="/chat/completions", **headers):
    headers = {"authorization": f"Bearer {KEY}", **headers}
    if isinstance(body, bytes):
        headers["content-type"] = "application/json"
        return httpx2.post(server.url + path, content=body, headers=headers)
    return httpx2.post(server.url + path, json=body, headers=headers)


def samples(server):
    text = httpx2.get(
        f"http://127.0.0.1:{server.port}/metrics", headers={"authorization": f"Bearer {KEY}"}
    ).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def lines(log, logger="penstock.requests"):
    logging.getLogger().handlers[0].flush()
    records = [json.loads(line) for line in log.getvalue().splitlines()]
    return [record for record in records if record["logger"] == logger]


def test_metrics_count_what_happened(server):
    """Requests, tokens, cache hits, first tokens, gaps and blocks."""
    usages = [post(server, chat("same " * 40, max_tokens=6)).json()["usage"] for _ in range(2)]
    post(server, b"{")
    eventually(server.quiet)
    found = samples(server)
    route = 'route="/v1/chat/completions"'
    assert found[f'penstock_requests_total{{{route},status="200"}}'] == 2
    assert found[f'penstock_requests_total{{{route},status="400"}}'] == 1
    assert found["penstock_generated_tokens_total"] == 12
    assert found["penstock_prompt_tokens_total"] == sum(u["prompt_tokens"] for u in usages)
    cached = usages[1]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0
    assert found["penstock_cached_tokens_total"] == cached
    assert found["penstock_prefix_hit_tokens_total"] == cached
    assert found["penstock_time_to_first_token_seconds_count"] == 2
    assert found["penstock_inter_token_seconds_count"] > 0
    assert found["penstock_kv_blocks_total"] == 512
    assert found["penstock_kv_blocks_used"] == 0
    assert found["penstock_running_sequences"] == 0


def test_labels_come_from_closed_sets(server):
    """A thousand paths and models are not a thousand series."""
    for number in range(50):
        httpx2.get(f"http://127.0.0.1:{server.port}/path-{number}")
        post(server, {"model": f"model-{number}", "messages": []})
        httpx2.get(f"{server.url}/models/m{number}", headers={"authorization": f"Bearer {KEY}"})
    names = "\n".join(samples(server))
    assert "path-7" not in names
    assert "model-7" not in names
    assert "m7" not in names
    assert len(names.splitlines()) < 300


def test_one_line_per_request_tells_its_story(server, log):
    """Id, route, status, tokens, times and finishes."""
    answer = post(server, chat(max_tokens=5), **{"x-request-id": "mine-1"})
    line = eventually(lambda: lines(log))[-1]
    assert line["request_id"] == "mine-1"
    assert (line["method"], line["route"]) == ("POST", "/v1/chat/completions")
    assert (line["status"], line["outcome"]) == (200, "answered")
    assert line["model"] == MODEL
    assert line["completion_tokens"] == 5
    assert line["finish_reasons"] == ["length"]
    assert 0 < line["ttft_s"] <= line["duration_s"]
    assert answer.json()["id"].endswith(line["call_id"])


def test_a_disconnect_is_told_apart(server, log):
    """With the tokens that were sent until then."""
    with Raw(server.port) as raw:
        auth = (f"authorization: Bearer {KEY}",)
        raw.send("POST", "/v1/chat/completions", chat(stream=True, max_tokens=1500), auth)
        raw.read_until(b'{"content":"')
    line = eventually(lambda: lines(log))[-1]
    assert line["outcome"] == "client_gone"
    assert 0 < line["completion_tokens"] < 1500


def test_health_probes_are_not_logged(server, log):
    """Every few seconds, for ever, by everybody."""
    httpx2.get(f"http://127.0.0.1:{server.port}/livez")
    post(server, chat(max_tokens=1))
    eventually(lambda: lines(log))
    assert {line["route"] for line in lines(log)} == {"/v1/chat/completions"}


def test_no_prompt_key_or_answer_is_ever_logged_or_echoed(server, log):
    """Through answers, refusals, a broken engine and every field of a request."""
    bodies = [
        chat(PROMPT), chat(PROMPT, n=-1), chat(PROMPT, stop=PROMPT * 50), chat(PROMPT, user=PROMPT),
        {"model": PROMPT, "messages": []}, chat(PROMPT, **{PROMPT: 1}), chat(PROMPT * 2000),
        {"model": MODEL, "messages": [{"role": PROMPT, "content": PROMPT}]},
        f'{{"{PROMPT}'.encode(), chat(PROMPT, logit_bias={PROMPT: PROMPT}),
        chat(PROMPT, response_format={"type": PROMPT}),
    ]  # fmt: skip
    told = []
    for body in bodies:
        for path in ("/chat/completions", "/completions", f"/{PROMPT.replace(' ', '-')}"):
            reply = post(server, body, path, **{"x-request-id": PROMPT})
            if reply.status_code >= 400:
                told += [reply.text, str(reply.headers)]
    told += list(samples(server))
    server.runner.broken.set()
    told.append(post(server, chat(PROMPT, max_tokens=500)).text)
    server.thread.join(20)
    logging.getLogger().handlers[0].flush()
    heard = log.getvalue()
    assert "fault" in heard
    for secret in (KEY, PROMPT, PROMPT.replace(" ", "-"), "secret prompt text"):
        assert secret not in heard
        assert not any(secret in text for text in told)
