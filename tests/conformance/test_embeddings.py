"""Vectors equal transformers' own, pooled as sentence-transformers does, in any batch."""

import asyncio
import shutil
from dataclasses import replace

import numpy as np
import pytest

from engines.api import EmbeddingRequest, RequestId
from engines.embedding import PooledEmbedder
from engines.errors import RequestFailed
from engines.torch.encoders import ENCODERS as ENCODER_FAMILIES
from engines.torch.recipe import Pooling
from tests.support.engines import ask, read, running
from tests.support.tiny_encoders import (
    ENCODERS,
    RERANKERS,
    encoder_dir,
    sentence_files,
    with_files,
)
from tests.support.tiny_models import TINY_MODELS, by_name, greedy_truth, model_dir, prompts
from tests.support.vectors import (
    decoder_engine,
    embed_all,
    encoder_engine,
    true_logits,
    true_vectors,
)

CLOSE = 1e-4
SAME = 1e-5  # of a vector of length 1, between one batch and another
DENSE = ((64, 48, "Tanh"), (48, 32, "Identity"))
TEXTS = prompts(20, longest=150)
POOLINGS = ("cls", "mean", "last")

named = {"ids": lambda tiny: tiny.name}


def vectors_of(engine, *waves, **options):
    """The vectors of each wave of texts, one wave after the other."""

    async def scenario():
        async with running(engine):
            return [
                np.array(await embed_all(engine, texts, wave=i, **options), np.float32)
                for i, texts in enumerate(waves)
            ]

    return asyncio.run(asyncio.wait_for(scenario(), 60))


def described(tiny, pooling, **options):
    """The same model with sentence-transformers files."""
    name = f"{tiny.name}-{pooling}-{'-'.join(map(str, options))}"
    files = sentence_files(pooling, **options)
    return replace(tiny, name=name, files=files, dense=options.get("dense", ()))


def test_every_family_on_offer_has_an_equality_test():
    """A family cannot be added to the table without a model here."""
    assert {tiny.family for tiny in ENCODERS} == set(ENCODER_FAMILIES)
    assert {tiny.family for tiny in RERANKERS} == set(ENCODER_FAMILIES)


@pytest.mark.parametrize("tiny", ENCODERS, **named)
def test_an_encoder_without_files_takes_the_mean_and_normalises(tiny):
    """What sentence-transformers makes of a plain checkpoint, at length 1."""
    path = encoder_dir(tiny)
    truth = true_vectors(path, TEXTS, "mean", normalise=True, pad=1)
    assert np.ptp(truth, axis=0).max() > 0.1  # texts differ, or equality would say little
    (vectors,) = vectors_of(encoder_engine(path), TEXTS)
    assert np.abs(vectors - truth).max() < CLOSE


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalise", [True, False], ids=["length-1", "as-is"])
@pytest.mark.parametrize("tiny", ENCODERS, **named)
def test_an_encoder_pools_as_its_files_say(tiny, pooling, normalise):
    """Each pooling, with and without Normalize."""
    path = encoder_dir(described(tiny, pooling, normalise=normalise))
    truth = true_vectors(path, TEXTS, pooling, normalise=normalise, pad=1)
    (vectors,) = vectors_of(encoder_engine(path), TEXTS)
    assert np.abs(vectors - truth).max() < CLOSE


@pytest.mark.parametrize("tiny", [ENCODERS[0]], **named)
def test_dense_layers_follow_the_pooling(tiny):
    """Two of them, each with its activation, then the norm."""
    path = encoder_dir(described(tiny, "mean", normalise=True, dense=DENSE))
    truth = true_vectors(path, TEXTS, "mean", normalise=True, dense=DENSE, pad=1)
    (vectors,) = vectors_of(encoder_engine(path), TEXTS)
    assert vectors.shape == (len(TEXTS), 32)
    assert np.abs(vectors - truth).max() < CLOSE


@pytest.mark.parametrize("tiny", ENCODERS, **named)
def test_an_encoders_vectors_do_not_depend_on_the_batch(tiny):
    """All at once, backwards, each alone, and beside copies: the same vectors."""
    alone = [[text] for text in TEXTS]
    engine = encoder_engine(encoder_dir(tiny))
    first, back, double, *single = vectors_of(
        engine, TEXTS, TEXTS[::-1], [t for t in TEXTS for _ in range(2)], *alone
    )
    assert np.abs(back[::-1] - first).max() < SAME
    assert np.abs(double[::2] - first).max() < SAME
    assert np.abs(np.concatenate(single) - first).max() < SAME


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
@pytest.mark.parametrize("tiny", RERANKERS, **named)
def test_a_cross_encoder_gives_the_logit_of_each_pair(tiny, typed):
    """Token types tell the second text from the first, where there are any."""
    path = encoder_dir(tiny)
    typed = typed and tiny.family != "distilbert"
    seconds = [max(1, len(text) // 3) if typed else 0 for text in TEXTS]
    truth = true_logits(path, list(zip(TEXTS, seconds, strict=True)))
    assert np.ptp(truth) > 0.1
    (logits,) = vectors_of(encoder_engine(path), TEXTS, seconds=seconds)
    assert logits.shape == (len(TEXTS), 1)
    assert np.abs(logits[:, 0] - truth).max() < CLOSE


@pytest.mark.parametrize("tiny", TINY_MODELS, **named)
def test_a_chat_model_embeds_by_its_last_token(tiny):
    """From the loaded model itself, after its final norm; prompts chunked by 71 rows."""
    path = model_dir(tiny)
    truth = true_vectors(path, TEXTS, "last", normalise=True)
    assert np.ptp(truth, axis=0).max() > 0.1
    (vectors,) = vectors_of(decoder_engine(path), TEXTS)
    assert np.abs(vectors - truth).max() < CLOSE


@pytest.fixture(params=POOLINGS)
def pooling(request):
    return request.param


@pytest.fixture(params=["llama", "qwen3", "mistral-window", "gemma3"])
def published(request, tmp_path, pooling):
    """A decoder as embedding models are published, and the name of its pooling."""
    path = shutil.copytree(model_dir(by_name(request.param)), tmp_path / "model")
    return with_files(path, sentence_files(pooling, normalise=True))


def test_a_published_decoder_pools_as_its_files_say(published, pooling):
    """Every pooling, over chunks of any size, in a small pool, and again: the same vectors."""
    truth = true_vectors(published, TEXTS, pooling, normalise=True)
    whole, again = vectors_of(decoder_engine(published, rows=512), TEXTS, TEXTS[::-1])
    (chunked,) = vectors_of(decoder_engine(published, rows=40), TEXTS)
    (tight,) = vectors_of(decoder_engine(published, blocks=24), TEXTS)
    assert np.abs(whole - truth).max() < CLOSE
    assert np.abs(again[::-1] - whole).max() < SAME
    assert np.abs(chunked - whole).max() < SAME
    assert np.abs(tight - whole).max() < SAME


def test_chats_and_vectors_share_a_batch():
    """Greedy tokens are transformers' own while vectors are made beside them, and those equal."""
    path = model_dir(by_name("llama"))
    starts = prompts(8, longest=60, seed=3)
    engine = decoder_engine(path)

    async def scenario():
        async with running(engine):
            chats = [ask(f"c{i}", start, max_tokens=12) for i, start in enumerate(starts)]
            streams = [asyncio.ensure_future(read(engine.generate(chat))) for chat in chats]
            vectors = await embed_all(engine, TEXTS)
            return vectors, [(await stream)[0].tokens for stream in streams]

    vectors, tokens = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert tokens == greedy_truth(path, starts, 12)
    assert np.abs(vectors - true_vectors(path, TEXTS, "last", normalise=True)).max() < CLOSE


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_preempted_prompt_is_pooled_anew(pooling):
    """A chat of higher rank takes its blocks half way: no row counts twice, none is lost."""
    path = model_dir(by_name("llama"))
    engine = decoder_engine(path, rows=40, blocks=20)
    engine._runner._pooler._head.pooling = Pooling(pooling)  # a chat model's own is the last row
    text = TEXTS[0]
    assert len(text) == 150

    async def scenario():
        async with running(engine):
            chat = asyncio.ensure_future(read(engine.generate(ask("c", [9] * 7, max_tokens=40))))
            request = EmbeddingRequest(RequestId("v"), tuple(text), priority=5)
            vector = await PooledEmbedder(engine).embed(request)
            await chat
            return list(vector), engine.load().preemptions

    vector, preemptions = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert preemptions == 1
    assert np.abs(vector - true_vectors(path, [text], pooling, normalise=True)[0]).max() < CLOSE


@pytest.mark.parametrize("tiny", [*ENCODERS, by_name("llama")], **named)
def test_bfloat16_points_the_same_way(tiny):
    """Not within any exactness: within 0.02 of the cosine, texts of one token included."""
    path = encoder_dir(tiny) if tiny in ENCODERS else model_dir(tiny)
    engine = encoder_engine if tiny in ENCODERS else decoder_engine
    (exact,) = vectors_of(engine(path), TEXTS)
    (coarse,) = vectors_of(engine(path, dtype="bfloat16"), TEXTS)
    assert (exact * coarse).sum(axis=1).min() > 0.98


def test_bfloat16_ranks_too():
    """The head takes the pooled row in the model's own precision."""
    path = encoder_dir(RERANKERS[0])
    (exact,) = vectors_of(encoder_engine(path), TEXTS)
    (coarse,) = vectors_of(encoder_engine(path, dtype="bfloat16"), TEXTS)
    assert np.abs(exact - coarse).max() < 0.1 * np.ptp(exact)


def test_a_vector_that_is_not_finite_fails_its_own_request():
    """Its batch-mates get theirs, and the engine goes on."""
    engine = encoder_engine(encoder_dir(ENCODERS[0]))
    words = engine._runner._module.embeddings.word_embeddings.weight
    words[77] = float("nan")

    async def scenario():
        async with running(engine):
            with pytest.raises(RequestFailed, match="not finite"):
                await embed_all(engine, [[5, 77, 6]])
            mixed = [[5, 6], [5, 77, 6], [7]]
            embedder = PooledEmbedder(engine)
            requests = [
                EmbeddingRequest(RequestId(f"m{i}"), tuple(text)) for i, text in enumerate(mixed)
            ]
            found = await asyncio.gather(*map(embedder.embed, requests), return_exceptions=True)
            again = await embed_all(engine, [[5, 6]], wave=2)
            return found, again, engine.load()

    found, again, load = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert isinstance(found[1], RequestFailed)
    assert np.allclose(list(found[0]), again[0], atol=SAME)
    assert np.isfinite(list(found[2])).all()
    assert (load.alive, load.blocks_used) == (True, 0)
