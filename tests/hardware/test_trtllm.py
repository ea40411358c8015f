"""The TensorRT-LLM engine on the real thing: run inside NVIDIA's container, on a GPU.

    pytest -m trtllm tests/hardware --trtllm-config engine.yaml

Without `--trtllm-config` or TensorRT-LLM every case is skipped, with the reason.
"""

import asyncio
import importlib
import inspect
import json
from dataclasses import replace
from pathlib import Path

import pytest

from engines.api import Capability, FinishReason
from engines.trtllm.disaggregated import DISAGGREGATED
from engines.trtllm.opening import open_trtllm
from engines.trtllm.retention import RETENTION
from tests.support.engines import ask, read
from tests.support.trtllm_standin.facts import VERSIONS, facts

pytestmark = [pytest.mark.anyio, pytest.mark.trtllm]


@pytest.fixture(scope="module")
def anyio_backend():
    """One loop for the module: the engine belongs to it."""
    return "asyncio"


@pytest.fixture(scope="module")
def package():
    """The real package."""
    return pytest.importorskip(
        "tensorrt_llm",
        reason="tensorrt_llm is not installed: its wheels are on pypi.nvidia.com, images on NGC",
        exc_type=ImportError,
    )


@pytest.fixture(scope="module")
def config(request):
    """The text of the configuration."""
    path = request.config.getoption("--trtllm-config", None)
    if path is None:
        pytest.skip("no --trtllm-config was given")
    return Path(path).read_text()


@pytest.fixture(scope="module")
async def engine(package, config):
    """One engine for all cases: it takes minutes to load."""
    deaths = []
    engine = open_trtllm(config, on_death=deaths.append)
    await engine.start()
    yield engine
    await engine.stop(grace_s=5)
    assert not deaths


def test_the_installed_version_has_the_names_of_its_table(package):
    """Drift: what our table of the version says must be so."""
    if package.__version__ not in VERSIONS:
        pytest.skip(f"there is no table of {package.__version__}")
    table = facts(package.__version__)
    llmapi = importlib.import_module("tensorrt_llm.llmapi")
    for name in ("LoRARequest", "DisaggregatedParams"):
        assert set(table[name]) <= set(inspect.signature(getattr(llmapi, name)).parameters), name
    for name in ("TorchLlmArgs", "KvCacheConfig", "SchedulerConfig"):
        assert set(table[name]) <= set(getattr(llmapi, name).model_fields), name
    sampling = set(inspect.signature(package.SamplingParams).parameters)
    assert set(table["SamplingParams"]) <= sampling
    call = set(inspect.signature(package.LLM.generate_async).parameters)
    assert {each["name"] for each in table["LLM"]["generate_async"]} <= call


async def test_greedy_answers_repeat_and_end_once(engine):
    """Twice the same; counts and the finish are right."""
    first, again = [
        (await read(engine.generate(ask(name, [1, 2, 3, 4], max_tokens=24))))[0] for name in "ab"
    ]
    assert first.tokens == again.tokens
    assert first.finish.generated == len(first.tokens) == 24


async def test_a_stop_token_is_the_last_token_of_the_log(engine):
    """It is returned although the engine looks for it."""
    whole = (await read(engine.generate(ask("a", [1, 2, 3, 4]))))[0].tokens
    stop = whole[5]
    asked = ask("b", [1, 2, 3, 4], stop_tokens=frozenset({stop}))
    answer = (await read(engine.generate(asked)))[0]
    assert answer.tokens == whole[: whole.index(stop) + 1]
    assert (answer.finish.reason, answer.finish.stop_token) == (FinishReason.STOP, stop)


async def test_min_tokens_and_bans_hold(engine):
    """By a bias of minus infinity; so do allowed tokens."""
    whole = (await read(engine.generate(ask("a", [1, 2, 3, 4]))))[0].tokens
    asked = ask("b", [1, 2, 3, 4], stop_tokens=frozenset({whole[0]}), min_tokens=4)
    assert whole[0] not in (await read(engine.generate(asked)))[0].tokens[:4]
    only = ask("c", [1, 2, 3, 4], allowed=frozenset({5, 6, 7}))
    assert set((await read(engine.generate(only)))[0].tokens) <= {5, 6, 7}


async def test_log_probabilities_keep_step(engine):
    """One per token; greedy tokens are the most likely."""
    for most in (0, 3):
        answer = (await read(engine.generate(ask(f"k{most}", [1, 2, 3, 4], logprobs=most))))[0]
        assert len(answer.logprobs) == len(answer.tokens)
        for token, told in zip(answer.tokens, answer.logprobs, strict=True):
            assert len(told.top) == most
            assert not most or told.top[0][0] == token


async def test_a_prefix_is_found_again(engine):
    """Once it is long enough for a block."""
    prompt = [index % 50 + 5 for index in range(4 * engine.info.block_size + 1)]
    await read(engine.generate(ask("a", prompt)))
    assert (await read(engine.generate(ask("b", prompt))))[0].cached > 0


async def test_a_closed_stream_lets_the_engine_go_on(engine):
    """Aborts in all numbers; the next answer is as before."""
    control = (await read(engine.generate(ask("control", [1, 2, 3, 4]))))[0].tokens
    streams = [engine.generate(ask(f"s{i}", [1, 2, i + 5], max_tokens=200)) for i in range(16)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    for stream in streams:
        await stream.aclose()
    assert engine.load().running == 0
    assert (await read(engine.generate(ask("again", [1, 2, 3, 4]))))[0].tokens == control


async def test_an_adapter_answers_as_itself(engine):
    """Where the configuration has one: another text, and no prefix of the model's."""
    if not engine.info.adapters:
        pytest.skip("penstock.adapters is empty")
    prompt = [index % 50 + 5 for index in range(2 * engine.info.block_size + 1)]
    plain = (await read(engine.generate(ask("a", prompt))))[0]
    adapted = replace(ask("b", prompt), adapter=engine.info.adapters[0])
    first, again = [(await read(engine.generate(adapted)))[0] for _ in range(2)]
    assert first.cached == 0
    assert again.cached > 0
    assert first.tokens == again.tokens != plain.tokens


async def test_retention_is_taken(engine):
    """The objects are made as the bindings want them."""
    if RETENTION not in engine.info.extras:
        pytest.skip("enable_block_reuse is off")
    ranges = [{"token_start": 0, "token_end": 2, "priority": 90, "duration_ms": 1000}]
    told = {"token_range_retention_configs": ranges, "decode_retention_priority": 5}
    request = replace(ask("a", [1, 2, 3, 4]), extras={RETENTION: json.dumps(told)})
    assert (await read(engine.generate(request)))[0].finish is not None


async def test_two_phases_say_what_one_call_says(engine):
    """Of one engine here, which fetches from itself."""
    if DISAGGREGATED not in engine.info.extras:
        pytest.skip("cache_transceiver_config is not set")
    whole = (await read(engine.generate(ask("whole", [1, 2, 3, 4]))))[0].tokens
    context = {DISAGGREGATED: json.dumps({"request_type": "context_only"})}
    stream = engine.generate(replace(ask("a", [1, 2, 3, 4], max_tokens=1), extras=context))
    (event,) = [event async for event in stream]
    assert event.tokens == whole[:1]
    told = json.loads(event.extras[DISAGGREGATED])
    rest = {DISAGGREGATED: json.dumps({**told, "request_type": "generation_only"})}
    request = replace(ask("b", [1, 2, 3, 4]), extras=rest)
    assert (await read(engine.generate(request)))[0].tokens == whole


async def test_a_grammar_is_held_to(engine):
    """Where the configuration has llguidance."""
    if Capability.GRAMMAR not in engine.info.capabilities:
        pytest.skip("guided_decoding_backend is not llguidance")
    grammar = 'start: "a" | "b"'
    asked = ask("a", [1, 2, 3, 4], grammar=grammar, stop_tokens=engine.ends, max_tokens=8)
    answer = (await read(engine.generate(asked)))[0]
    assert answer.finish.reason is FinishReason.STOP
