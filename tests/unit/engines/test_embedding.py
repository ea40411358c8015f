"""Pooled requests through the scheduler: vectors depend on nothing but their prompts."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.api import EmbeddingRequest, Embeds, EngineInfo, RequestId
from engines.embedding import PooledEmbedder
from engines.errors import ContextOverflow, Unsupported
from engines.ledger import VECTOR_SIZE, ledger_tokens, ledger_vector
from engines.limits import Limits
from engines.stepped import SteppedEngine
from tests.support.engines import VOCAB, Gated, ask, ledger, limits_for, read, running

EMBEDS = Embeds(VECTOR_SIZE, normalised=True)


def embedding_engine(limits: Limits, runner=None, **purpose) -> SteppedEngine:
    """A ledger that gives vectors."""
    info = EngineInfo(
        "test", limits.max_context, VOCAB, limits.block_size, limits.num_blocks,
        limits.max_running, **({"embeds": EMBEDS} | purpose),
    )  # fmt: skip
    return SteppedEngine(info, limits, runner or ledger(limits))


def embedding(name: str, prompt: list[int], **fields) -> EmbeddingRequest:
    return EmbeddingRequest(RequestId(name), tuple(prompt), **fields)


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 30))


async def free(engine):
    await until(lambda: not (engine.load().blocks_used or engine.load().running))


async def until(condition):
    while not condition():  # noqa: ASYNC110 - counters of another thread: nothing to wait on
        await asyncio.sleep(0.001)


prompts = st.lists(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=90), min_size=1, max_size=12
)


@settings(max_examples=30, deadline=None)
@given(texts=prompts, tokens_per_step=st.integers(12, 64), blocks=st.integers(24, 200))
def test_a_vector_depends_on_its_prompt_alone(texts, tokens_per_step, blocks):
    """Any batch, chunking, pool and shared prefixes give the oracle's vector."""
    engine = embedding_engine(limits_for(tokens_per_step=tokens_per_step, num_blocks=blocks))

    async def scenario():
        async with running(engine):
            embedder = PooledEmbedder(engine)
            twice = [*texts, *texts]
            vectors = await asyncio.gather(
                *(embedder.embed(embedding(str(i), text)) for i, text in enumerate(twice))
            )
            assert [list(vector) for vector in vectors] == [ledger_vector(t) for t in twice]
            await asyncio.wait_for(free(engine), 5)

    run(scenario())


@settings(max_examples=20, deadline=None)
@given(texts=prompts)
def test_whole_prompts_are_never_cut(texts):
    """An encoder's limits: each prompt in one step, whatever else waits."""
    limits = limits_for(max_context=90, tokens_per_step=90, whole_prompts=True)
    inner = ledger(limits)
    cut = []

    class Watching:
        collect, close = inner.collect, inner.close

        def launch(self, plan):
            cut.extend(plan.past[plan.past > 0].tolist())
            return inner.launch(plan)

    engine = embedding_engine(limits, Watching(), generates=False)

    async def scenario():
        async with running(engine):
            embedder = PooledEmbedder(engine)
            vectors = await asyncio.gather(
                *(embedder.embed(embedding(str(i), text)) for i, text in enumerate(texts))
            )
        assert [list(vector) for vector in vectors] == [ledger_vector(t) for t in texts]
        assert not cut

    run(scenario())


def test_vectors_and_chats_share_steps_and_leave_each_other_alone():
    """One engine, one batch: both are what they are alone."""
    engine = embedding_engine(limits_for())

    async def scenario():
        async with running(engine):
            chats = [ask(f"c{i}", [i, 2, 3] * 9) for i in range(3)]
            streams = [asyncio.ensure_future(read(engine.generate(chat))) for chat in chats]
            vector = await PooledEmbedder(engine).embed(embedding("v", [7] * 40))
            answers = [(await stream)[0].tokens for stream in streams]
        assert list(vector) == ledger_vector([7] * 40)
        expected = [ledger_tokens(c.prompt, c.sampling, vocab_size=VOCAB) for c in chats]
        assert answers == expected

    run(scenario())


def test_a_preempted_prompt_is_begun_anew():
    """A chat of higher rank takes its blocks; the vector is the same."""
    engine = embedding_engine(limits_for(tokens_per_step=12, num_blocks=28))

    async def scenario():
        async with running(engine):
            stream = asyncio.ensure_future(read(engine.generate(ask("c", [1] * 8))))
            vector = await PooledEmbedder(engine).embed(embedding("v", [7] * 100, priority=5))
            await stream
            return list(vector), engine.load().preemptions

    assert run(scenario()) == (ledger_vector([7] * 100), 1)


def test_a_prompt_may_fill_the_context():
    """The token nobody wants takes no room; one prompt token more is refused."""
    limits = limits_for(max_context=32)
    engine = embedding_engine(limits)

    async def scenario():
        async with running(engine):
            embedder = PooledEmbedder(engine)
            assert list(await embedder.embed(embedding("a", [5] * 32))) == ledger_vector([5] * 32)
            with pytest.raises(ContextOverflow):
                await embedder.embed(embedding("b", [5] * 33))

    run(scenario())


def test_cancelling_frees_the_blocks():
    """The reader leaves while its prompt is being computed: nothing stays held."""
    limits = limits_for(tokens_per_step=12)
    gate = Gated(ledger(limits), steps=2)
    engine = embedding_engine(limits, gate)

    async def scenario():
        async with running(engine):
            task = asyncio.ensure_future(PooledEmbedder(engine).embed(embedding("v", [1] * 100)))
            await until(lambda: gate.waiting.is_set() and engine.load().blocks_used)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open()
            await asyncio.wait_for(free(engine), 5)

    run(scenario())


@pytest.mark.parametrize(
    ("purpose", "pooled"),
    [({"embeds": None}, True), ({"generates": False}, False)],
    ids=["no-vectors", "no-tokens"],
)
def test_an_engine_refuses_what_it_is_not_for(purpose, pooled):
    """Unsupported, at once."""
    engine = embedding_engine(limits_for(), **purpose)

    async def scenario():
        async with running(engine):
            with pytest.raises(Unsupported):
                engine.generate(replace(ask("c", [1]), pooled=pooled))

    run(scenario())


def test_an_engine_that_ranks_pools_without_embedding():
    """A cross-encoder's vectors are logits: it makes no embeddings."""
    engine = embedding_engine(limits_for(), embeds=None, ranks=True, generates=False)

    async def scenario():
        async with running(engine):
            return await PooledEmbedder(engine).embed(embedding("v", [1, 2, 3, 4], second=2))

    assert len(run(scenario())) == VECTOR_SIZE
