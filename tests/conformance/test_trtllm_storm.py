"""Many readers of one TensorRT-LLM engine, some of whom go away: texts, books and queues hold."""

import asyncio
import random

import pytest

from engines.api import GenerationRequest, RequestId, Sampling
from tests.conformance.test_engine_contract import settled
from tests.support.engines import ask, read, running
from tests.support.trtllm import Made, model_directory
from tests.support.trtllm_standin.facts import VERSIONS
from tests.support.trtllm_standin.package import installed

pytestmark = pytest.mark.anyio

LONGEST = 24


def some_request(chance: random.Random, index: int) -> GenerationRequest:
    """Any prompt of few tokens, any number of choices, any end."""
    most = chance.randint(1, LONGEST)
    sampling = Sampling(
        max_tokens=most,
        temperature=0.0,
        stop_tokens=frozenset(chance.sample(range(500), chance.choice([0, 1, 60]))),
        min_tokens=chance.choice([0, 0, min(3, most)]),
        logprobs=chance.choice([None, None, 1]),
    )
    return GenerationRequest(
        RequestId(f"r{index}"),
        tuple(chance.randint(1, 3) for _ in range(chance.randint(1, 20))),
        sampling,
        chance.choice([1, 1, 2, 4]),
        priority=chance.randint(-2, 2),
        cache_salt=chance.choice([b"", b"a"]),
    )


async def expected(engine, request: GenerationRequest) -> list[int]:
    """The greedy text of a request, by its own rules, from an unbounded answer."""
    free = ask(request.id, list(request.prompt), max_tokens=LONGEST)
    text = (await read(engine.generate(free)))[0].tokens[: request.sampling.max_tokens]
    stops = [at for at, token in enumerate(text) if token in request.sampling.stop_tokens]
    return text[: stops[0] + 1] if stops else text


async def one(engine, request: GenerationRequest, chance: random.Random):
    """Read a request, or leave it in one of the ways there are."""
    stream = engine.generate(request)
    way = chance.choice(["read", "read", "read", "close", "end a choice"])
    if way == "read":
        return await read(stream)
    for _ in range(chance.randint(0, 3)):
        await anext(stream, None)
    if way == "close" or request.n == 1:
        await stream.aclose()
        return {}
    stream.end_choice(0)
    async for event in stream:
        assert event.choice != 0
    return {}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_storm_leaves_right_texts_and_nothing_else(version, tmp_path):
    """300 requests over 8 places and few blocks; a third of the readers go away."""
    chance = random.Random(7)
    with installed(version) as recorder:
        made = Made(model_directory(tmp_path / "model"), recorder)
        requests = [some_request(chance, index) for index in range(300)]
        async with running(made.engine(num_blocks=40, tokens_per_step=32)) as engine:
            plain = {
                request.id: await expected(engine, request)
                for request in requests
                if not request.sampling.min_tokens
            }
        async with running(made.engine(num_blocks=40, tokens_per_step=32)) as engine:
            simulator = recorder.simulator
            tasks = [one(engine, request, random.Random(request.id)) for request in requests]
            for request, answers in zip(requests, await asyncio.gather(*tasks), strict=True):
                for answer in answers.values():
                    assert answer.finish.generated == len(answer.tokens)
                    if request.id in plain:
                        assert answer.tokens == plain[request.id]
                assert set(answers) in (set(), set(range(request.n)))
            await settled(engine, running=0, waiting=0, waiting_tokens=0, blocks_used=0)
            assert not engine._traffic._runs
            assert engine._traffic.admission.starting_tokens == 0
        assert simulator.empty
        assert simulator.cache.used == 0
        # Prefix hits make promises smaller, so a few may wait below, but never a queue.
        assert simulator.deepest <= 8
