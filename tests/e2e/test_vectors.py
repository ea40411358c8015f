"""Vectors over a live port: what clients get, what is given back, and who waits for whom."""

import asyncio
import json
import threading

import httpx2
import numpy as np
import openai
import pytest

from engines.ledger import ledger_vector
from gateway.opening import open_engine
from tests.support.live import MODEL, Raw, chat, eventually, live, test_settings
from tests.support.tiny_encoders import ENCODERS, RERANKERS, encoder_dir
from tests.support.vectors import true_logits, true_vectors
from tests.support.words import CLS, SEP

EMBEDDINGS = "/v1/embeddings"
TEXTS = [" ".join(f"w{i}" for i in range(4 + k, 40 + 3 * k)) for k in range(20)]


@pytest.fixture(scope="module")
def ledger():
    with live(test_settings(max_running=4)) as server:
        yield server


@pytest.fixture(scope="module")
def encoder():
    with live(test_settings(model_dir=encoder_dir(ENCODERS[0])), opener=open_engine) as server:
        yield server


@pytest.fixture(scope="module")
def ranker():
    with live(test_settings(model_dir=encoder_dir(RERANKERS[0])), opener=open_engine) as server:
        yield server


def sdk(server):
    return openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)


def post(server, path, body, **headers):
    url = f"http://127.0.0.1:{server.port}{path}"
    return httpx2.post(url, json={"model": MODEL, **body}, headers=headers, timeout=30)


def ids_of(text):
    return [CLS, *(int(word[1:]) for word in text.split()), SEP]


def embedding(text="Hello there", **fields):
    return {"model": MODEL, "input": text, **fields}


def test_the_official_client_reads_what_transformers_computes(encoder):
    """Its default is base64; asked for numbers it gets the same ones."""
    truth = true_vectors(
        encoder_dir(ENCODERS[0]), [ids_of(text) for text in TEXTS], "mean", normalise=True, pad=1
    )
    with sdk(encoder) as client:
        coded = client.embeddings.create(model=MODEL, input=TEXTS)
        plain = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    vectors = np.array([entry.embedding for entry in coded.data])
    assert np.abs(vectors - truth).max() < 1e-4
    assert np.array_equal(vectors, [entry.embedding for entry in plain.data])
    assert coded.usage.total_tokens == sum(len(ids_of(text)) for text in TEXTS)
    assert [entry.index for entry in coded.data] == list(range(len(TEXTS)))


def test_the_asynchronous_client_too(encoder):
    """Twenty calls at once get what one call with twenty texts gets."""

    async def scenario():
        async with openai.AsyncOpenAI(base_url=encoder.url, api_key="x") as client:
            whole = await client.embeddings.create(model=MODEL, input=TEXTS)
            each = await asyncio.gather(
                *(client.embeddings.create(model=MODEL, input=text) for text in TEXTS)
            )
        return [e.embedding for e in whole.data], [one.data[0].embedding for one in each]

    whole, each = asyncio.run(scenario())
    assert np.abs(np.array(whole) - np.array(each)).max() < 1e-5


def test_shortened_vectors_have_length_one(encoder):
    """`dimensions`, through the client."""
    with sdk(encoder) as client:
        whole = client.embeddings.create(model=MODEL, input="w5 w6").data[0].embedding
        short = client.embeddings.create(model=MODEL, input="w5 w6", dimensions=10)
    part = np.array(whole[:10])
    assert np.allclose(short.data[0].embedding, part / np.linalg.norm(part), atol=1e-6)


def test_a_cross_encoder_ranks_as_transformers_does(ranker):
    """Best first, by the sigmoid of the logit of each pair."""
    query = "w5 w6 w7"
    pairs = [([*ids_of(query), *ids_of(text)[1:]], len(ids_of(query))) for text in TEXTS]
    logits = true_logits(encoder_dir(RERANKERS[0]), pairs)
    found = post(ranker, "/v1/rerank", {"query": query, "documents": TEXTS}).json()["results"]
    assert [each["index"] for each in found] == np.argsort(-logits, kind="stable").tolist()
    told = np.array([each["relevance_score"] for each in found])
    assert np.abs(told - 1 / (1 + np.exp(-np.sort(logits)[::-1]))).max() < 1e-4


def test_scores_follow_the_pairs(ranker):
    """Each as if it had been asked for alone."""
    both = post(ranker, "/v1/score", {"text_1": TEXTS[:3], "text_2": TEXTS[3:6]}).json()["data"]
    for place, entry in enumerate(both):
        pair = {"text_1": TEXTS[place], "text_2": TEXTS[3 + place]}
        (alone,) = post(ranker, "/v1/score", pair).json()["data"]
        assert entry["score"] == pytest.approx(alone["score"], abs=1e-6)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/v1/rerank/"])
def test_every_spelling_of_rerank_is_one_route(ranker, path):
    """Jina's, Cohere's and vLLM's."""
    assert post(ranker, path, {"query": "w5", "documents": ["w6"]}).status_code == 200


@pytest.mark.parametrize("path", ["/score", "/tokenize", "/detokenize", "/embeddings"])
def test_routes_are_there_without_the_prefix(ranker, path):
    """400 for an empty body, not 404."""
    assert post(ranker, path, {}).status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "w5"}]}),
        ("/v1/completions", {"prompt": "w5"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "w5"}], "max_tokens": 5}),
    ],
)
def test_an_encoder_says_that_it_generates_nothing(encoder, ranker, path, body):
    """400 model_does_not_generate, naming the model."""
    for server in (encoder, ranker):
        response = post(server, path, body)
        assert response.status_code == 400
        assert "generates no text" in response.text


def test_a_ranker_says_that_it_makes_no_embeddings(ranker):
    """400 model_does_not_embed."""
    error = post(ranker, EMBEDDINGS, {"input": "w5"}).json()["error"]
    assert (error["code"], error["param"]) == ("model_does_not_embed", "model")


def test_unknown_fields_are_told_in_a_header(encoder):
    """As for any call."""
    response = post(encoder, EMBEDDINGS, {"input": "w5", "colour": "blue"})
    assert response.headers["x-ignored-params"] == "colour"


def test_many_texts_wait_for_their_turn_and_are_all_answered(ledger):
    """A thousand texts of one call: never more than `max_running` of them in the engine."""
    texts = [[100 + k % 7, 50 + k % 50, 60] for k in range(1000)]
    most = []
    runner = ledger.runner
    launch = runner.launch

    def watching(plan):
        load = ledger.load()
        most.append(load.running + load.waiting)
        return launch(plan)

    runner.launch = watching
    try:
        body = post(ledger, EMBEDDINGS, {"input": texts}).json()
    finally:
        del runner.launch
    vectors = np.array([entry["embedding"] for entry in body["data"]], np.float32)
    assert np.array_equal(vectors, np.array([ledger_vector(text) for text in texts], np.float32))
    assert body["usage"]["prompt_tokens"] == 3000
    assert max(most) <= 4
    assert ledger.quiet()


def test_a_chat_is_answered_while_many_texts_are_embedded(ledger):
    """One call of thousands of texts does not stand before everybody else."""
    texts = [[k % 200 + 20] * 60 for k in range(2000)]
    done = threading.Event()
    answers = []

    def embed():
        answers.append(post(ledger, EMBEDDINGS, {"input": texts}))
        done.set()

    steps = ledger.load().steps
    thread = threading.Thread(target=embed)
    thread.start()
    eventually(lambda: ledger.load().steps > steps + 2)
    assert post(ledger, "/v1/chat/completions", chat(max_tokens=4)).status_code == 200
    assert not done.is_set()
    thread.join(60)
    assert answers[0].status_code == 200


def test_a_client_that_leaves_frees_what_its_texts_hold(ledger):
    """In the engine and in the gateway, and those not begun never begin."""
    ledger.runner.may_step.clear()
    raw = Raw(ledger.port)
    raw.send("POST", EMBEDDINGS, embedding([[k % 200 + 20] * 300 for k in range(900)]))
    eventually(lambda: ledger.load().running + ledger.load().waiting > 0)
    raw.socket.close()
    ledger.runner.may_step.set()
    eventually(ledger.quiet)
    steps = ledger.load().steps
    assert ledger.load().blocks_used == 0
    assert post(ledger, EMBEDDINGS, {"input": "once more"}).status_code == 200
    assert ledger.load().steps - steps <= 3


def test_a_full_queue_refuses_texts_like_any_call():
    """429 with when to come back, before the body is read."""
    settings = test_settings(max_running=2, max_queued_requests=0)
    with live(settings) as server:
        server.runner.may_step.clear()
        raw = Raw(server.port)
        raw.send("POST", EMBEDDINGS, embedding([[20] * 9, [21] * 9]))
        eventually(lambda: server.serving.dispatcher.admission.sequences == 2)
        refused = post(server, EMBEDDINGS, {"input": "another"})
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        server.runner.may_step.set()
        raw.read_until(b"total_tokens")
        raw.socket.close()


def test_a_drain_lets_texts_end():
    """Those that run are answered; new ones get 503."""
    with live() as server:
        server.runner.may_step.clear()
        with Raw(server.port) as raw:
            raw.send("POST", EMBEDDINGS, embedding([[20] * 9] * 40))
            eventually(lambda: server.load().running + server.load().waiting > 0)
            server.begin_exit()
            eventually(lambda: httpx2.get(f"http://127.0.0.1:{server.port}/readyz").is_error)
            assert post(server, EMBEDDINGS, {"input": "late"}).status_code == 503
            server.runner.may_step.set()
            got = raw.read_until(b"total_tokens")
        assert b"HTTP/1.1 200" in got
    assert server.exit_code == 0


def test_an_engine_that_dies_fails_the_call():
    """500 engine_died, and nothing of the cause."""
    with live() as server:
        server.runner.broken.set()
        response = post(server, EMBEDDINGS, {"input": ["a", "b"]})
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "engine_died"
        assert "secret" not in response.text


def test_usage_reaches_metrics_and_log(ledger):
    """Prompt tokens count; there are no generated ones."""

    def counted(name):
        text = httpx2.get(f"http://127.0.0.1:{ledger.port}/metrics").text
        return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])

    before = counted("penstock_prompt_tokens_total"), counted("penstock_generated_tokens_total")
    post(ledger, EMBEDDINGS, {"input": [[20, 21, 22], [23]]})
    after = counted("penstock_prompt_tokens_total"), counted("penstock_generated_tokens_total")
    assert (after[0] - before[0], after[1] - before[1]) == (4, 0)


def test_a_render_and_its_tokens_agree(ledger):
    """Over HTTP: the prompt of a chat, and what tokenize makes of the same messages."""
    messages = {"messages": [{"role": "user", "content": "Hello there"}]}
    rendered = post(ledger, "/v1/chat/completions/render", messages).json()
    counted = post(ledger, "/tokenize", messages).json()
    assert rendered["token_ids"] == counted["tokens"]
    text = post(ledger, "/detokenize", {"tokens": rendered["token_ids"]}).json()["prompt"]
    assert text == rendered["prompt"]
    usage = post(ledger, "/v1/chat/completions", {**messages, "max_tokens": 1}).json()["usage"]
    assert usage["prompt_tokens"] == rendered["count"]


def test_the_card_says_what_a_model_is_for(ledger, encoder, ranker):
    """Beside what OpenAI's clients read, which they still do."""
    for server, purposes in (
        (ledger, ["generate", "embed", "rank"]),
        (encoder, ["embed", "rank"]),
        (ranker, ["rank"]),
    ):
        with sdk(server) as client:
            (card,) = client.models.list().data
        assert card.model_dump()["purposes"] == purposes
    assert json.loads(httpx2.get(f"{encoder.url}/models").text)["data"][0]["embedding_size"] == 64
