"""Random JSON schemas on the bundled model at temperature 1: whatever ends, ends valid."""

import asyncio
import json

import jsonschema
import pytest
from llguidance import LLMatcher

from engines.api import Capability, EngineInfo, GenerationRequest, RequestId, Sampling
from engines.bundled import penstock_tiny
from engines.grammar.compiler import GrammarCompiler
from engines.grammar.vocabulary import read_vocabulary
from engines.limits import Limits
from engines.stepped import SteppedEngine
from engines.text.tokenizer import Tokenizer
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from tests.support.engines import read, running
from tests.support.schemas import random_object_schemas, random_schemas

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PROMPT = "<|im_start|>user\nAnswer in JSON.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_directory(penstock_tiny())


@pytest.fixture(scope="module")
def loaded():
    return open_model(penstock_tiny(), device="cpu")


def engine(loaded, *, blocks: int) -> SteppedEngine:
    facts = loaded.facts
    source = (penstock_tiny() / "tokenizer.json").read_text(encoding="utf-8")
    grammars = GrammarCompiler(read_vocabulary(source, facts.vocab_size, facts.eos_ids))
    limits = Limits(600, 32, 256, 16, blocks, facts.vocab_size)
    info = EngineInfo("tiny", 600, facts.vocab_size, 16, blocks, 32, frozenset(Capability))
    runner = TorchRunner(loaded, num_blocks=blocks, block_size=16, max_lanes=32, grammars=grammars)
    return SteppedEngine(info, limits, runner, grammars=grammars)


def asking(name, prompt, schema, **sampling):
    """A request for an answer to this schema."""
    source = LLMatcher.grammar_from_json_schema(
        json.dumps(schema), overrides={"whitespace_flexible": False}
    )
    values = Sampling(250, grammar=source, stop_tokens=frozenset({0, 2}), **sampling)
    return GenerationRequest(RequestId(name), prompt, values)


@pytest.mark.parametrize(
    ("count", "blocks"), [(300, 1200), (90, 60)], ids=["with-room", "with-preemption"]
)
async def test_every_finished_answer_is_valid(loaded, tokenizer, count, blocks):
    """Each schema with a seed of its own; every other answer without forced tokens."""
    schemas = random_schemas(count * 2 // 3, seed=1) + random_object_schemas(count // 3, seed=2)
    prompt = tuple(tokenizer.encode(PROMPT, special=False))
    async with running(engine(loaded, blocks=blocks)) as served:
        streams = [
            served.generate(
                asking(str(number), prompt, schema, seed=number, logprobs=[None, 0][number % 2])
            )
            for number, schema in enumerate(schemas)
        ]
        answers = [answer[0] for answer in await asyncio.gather(*map(read, streams))]
        assert (served.load().preemptions > 0) == (blocks == 60)
    ended = 0
    for schema, answer in zip(schemas, answers, strict=True):
        if answer.finish.stop_token is not None:
            ended += 1
            said = tokenizer.decode(answer.tokens)
            jsonschema.validate(json.loads(said), schema)
    assert ended > 0.85 * count  # a number may go on for as long as it likes


async def test_forced_tokens_say_what_would_have_been_said(loaded, tokenizer):
    """Greedy, with and without: the same text, but where the model would have cut it otherwise."""
    schemas = random_object_schemas(60, seed=5)
    prompt = tuple(tokenizer.encode(PROMPT, special=False))
    async with running(engine(loaded, blocks=1200)) as served:
        streams = [
            served.generate(
                asking(f"{number}-{logprobs}", prompt, schema, temperature=0.0, logprobs=logprobs)
            )
            for number, schema in enumerate(schemas)
            for logprobs in (None, 0)
        ]
        answers = [answer[0] for answer in await asyncio.gather(*map(read, streams))]
    equal = ended = 0
    for schema, forced, free in zip(schemas, answers[::2], answers[1::2], strict=True):
        if forced.finish.stop_token is None or free.finish.stop_token is None:
            continue
        texts = [tokenizer.decode(answer.tokens) for answer in (forced, free)]
        for said in texts:
            jsonschema.validate(json.loads(said), schema)
        ended += 1
        equal += texts[0] == texts[1]
    assert ended > 45
    assert equal > 0.8 * ended
