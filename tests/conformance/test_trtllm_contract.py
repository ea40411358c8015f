"""Every call the adapter makes, bound to the names of each supported version of TensorRT-LLM."""

import asyncio
import json
from dataclasses import replace

import pytest

from engines.api import GenerationRequest, RequestId, Sampling, ThinkingBudget
from engines.errors import Unsupported
from tests.support.engines import ask, read, running
from tests.support.trtllm import Made, model_directory
from tests.support.trtllm_standin.facts import (
    VERSIONS,
    NotInVersion,
    check_names,
    facts,
    signature,
)
from tests.support.trtllm_standin.package import installed

pytestmark = pytest.mark.anyio

EVERYTHING = [
    {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "seed": 3},
    {"presence": 0.5, "frequency": 0.5, "repetition": 1.1},
    {"bias": {4: 2.0}, "bad_words": ((5,),), "logprobs": 2},
    {"allowed": frozenset({7, 8}), "stop_tokens": frozenset({9, 499}), "min_tokens": 2},
    {"thinking": ThinkingBudget(4, (), (3,))},
    {"grammar": "start: /a/", "stop_tokens": frozenset({499})},
]


RETENTION = {
    "token_range_retention_configs": [{"token_start": 0, "priority": 9, "duration_ms": 1}],
    "decode_retention_priority": 5,
    "decode_duration_ms": 7,
}


async def ask_all_extras(engine):
    """An adapter, retention, and both phases of a request."""
    request = ask("special", [1, 2, 3], max_tokens=1)
    context = {"trtllm.disaggregated": '{"request_type": "context_only"}'}
    extras = {"trtllm.retention": json.dumps(RETENTION), **context}
    (event,) = [
        event async for event in engine.generate(replace(request, adapter="poet", extras=extras))
    ]
    told = json.loads(event.extras["trtllm.disaggregated"])
    again = json.dumps({**told, "request_type": "generation_only"})
    await read(engine.generate(replace(request, extras={"trtllm.disaggregated": again})))


async def calls_of(version, tmp_path):
    """All calls of an engine that was asked for all it can do."""
    with installed(version) as recorder:
        made = Made(model_directory(tmp_path / "model"), recorder)
        engine = made.engine(
            guided_decoding_backend="llguidance",
            reasoning_parser="deepseek-r1",
            enable_iter_perf_stats=True,
            tensor_parallel_size=2,
            lora_config={"lora_target_modules": ["attn_q"]},
            cache_transceiver_config={"backend": "DEFAULT"},
            penstock={"adapters": {"poet": str(made.model)}},
        )
        refused = set()
        async with running(engine):
            for index, sampling in enumerate(EVERYTHING):
                try:
                    await read(engine.generate(ask(str(index), [1, 2, 3], **sampling)))
                except Unsupported as error:
                    refused.add(error.param)
            await ask_all_extras(engine)
            salted = Sampling(3, temperature=0.0)
            await read(
                engine.generate(
                    GenerationRequest(
                        RequestId("salted"), (1, 2), salted, 2, priority=-2, cache_salt=b"s",
                        emitted=((4,), None),
                    )
                )
            )  # fmt: skip
            async with asyncio.timeout(10):
                while not engine.load().steps:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        return recorder.calls, refused


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_call_binds_and_no_name_is_on_its_way_out(version, tmp_path):
    """Constructor, nested configuration, sampling, guides, generate_async, events, statistics."""
    calls, refused = await calls_of(version, tmp_path)
    table = facts(version)
    assert {name for name, _ in calls} == {
        "LLM", "KvCacheConfig", "SamplingParams", "GuidedDecodingParams", "generate_async",
        "LoRARequest", "KvCacheRetentionConfig", "TokenRangeRetentionConfig", "DisaggregatedParams",
        "get_kv_cache_events_async", "get_stats_async",
        *(["SchedulerConfig"] if table["WaitingQueuePolicy"] else []),
    }  # fmt: skip
    for name, used in calls:
        if name in table["LLM"]:
            parameters = table["LLM"][name]
            signature(parameters).bind(**used)
            check_names(used, {each["name"]: each for each in parameters}, name)
        else:
            check_names(used, table["TorchLlmArgs" if name == "LLM" else name], name)
    assert refused == ({"thinking", "sampling"} if version == "1.2.1" else set())


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_version_has_is_used(version, tmp_path):
    """Priority, salts, the queue by priority and telemetry off: wherever the names are there."""
    calls, _ = await calls_of(version, tmp_path)
    generated = [used for name, used in calls if name == "generate_async"]
    new = version != "1.2.1"
    assert any("cache_salt" in used for used in generated)
    assert all(("priority" in used) is new for used in generated)
    assert max(used.get("priority", 0.5) for used in generated) == (
        pytest.approx(5 / 6) if new else 0.5
    )
    opened = next(used for name, used in calls if name == "LLM")
    assert ("telemetry_config" in opened) is new
    assert ("scheduler_config" in opened) is new
    if new:
        assert opened["scheduler_config"].waiting_queue_policy == "priority"


@pytest.mark.parametrize("name", ["no_such_name", "sampler_type", "backend"])
def test_unknown_and_deprecated_names_are_noticed(name):
    """The check itself: a name that is not there, and two that are on their way out."""
    with pytest.raises(NotInVersion, match=name):
        check_names([name], facts("1.4.0rc1")["TorchLlmArgs"], "LlmArgs")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_table_says_where_it_comes_from_and_what_is_not_verified(version):
    """Facts without a source are no facts."""
    table = facts(version)
    assert table["version"] == version
    assert table["sources"]
    assert table["unverified"]


def test_nothing_but_the_table_can_be_used():
    """The stand-in is strict: it has no other names."""
    with installed("1.2.1"):
        import tensorrt_llm  # noqa: PLC0415

        with pytest.raises(NotInVersion):
            _ = tensorrt_llm.builder
        with pytest.raises(TypeError):
            tensorrt_llm.SamplingParams(thinking_token_budget=3)
