"""LoRA adapters, retention and disaggregated phases over the stand-in of each supported version."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from engines.api import GenerationRequest, RequestId, Sampling
from engines.errors import InvalidRequest, ModelRejected, RequestFailed, Unsupported
from engines.replicas import ReplicaSet
from engines.trtllm.disaggregated import DISAGGREGATED
from engines.trtllm.retention import RETENTION
from kvcache.naming import prompt_names, within
from tests.conformance.test_engine_contract import settled
from tests.support.engines import Gated, ask, read, running
from tests.support.trtllm import Made, NoStep, model_directory
from tests.support.trtllm_standin.facts import VERSIONS
from tests.support.trtllm_standin.package import installed
from tests.support.trtllm_standin.simulator import Faults

pytestmark = pytest.mark.anyio

LORA = {"lora_target_modules": ["attn_q"], "max_lora_rank": 8}
TRANSFER = {"cache_transceiver_config": {"backend": "DEFAULT"}}
PROMPT = list(range(1, 14))


@pytest.fixture(params=VERSIONS)
def version(request):
    """One version after another."""
    return request.param


@pytest.fixture
def faults():
    """What goes wrong; a test sets it before it makes its engine."""
    return Faults()


@pytest.fixture
def kind(version, faults, tmp_path):
    """Makes engines of the version."""
    with installed(version, faults=faults) as recorder:
        yield Made(model_directory(tmp_path / "model"), recorder)


def called(kind, name):
    """The calls of that name."""
    return [used for each, used in kind.recorder.calls if each == name]


# -- adapters


def with_adapters(kind, *names, **changes):
    """An engine with adapters of these names, in directories of theirs."""
    paths = {name: str(kind.model / name) for name in names}
    for path in paths.values():
        (kind.model / path).mkdir(exist_ok=True)
    return kind.engine(lora_config=LORA, penstock={"adapters": paths}, **changes)


async def test_an_adapter_is_asked_for_by_its_name_and_answers_as_itself(kind):
    """Numbers follow the sorted names, so they are the same after each start."""
    async with running(with_adapters(kind, "poet", "clerk")) as engine:
        assert engine.info.adapters == ("clerk", "poet")
        texts = {}
        for name in ("", "poet", "clerk", "poet"):
            request = replace(ask(f"a{len(texts)}{name}", PROMPT), adapter=name)
            answer = (await read(engine.generate(request)))[0]
            assert texts.setdefault(name, answer.tokens) == answer.tokens
        assert len({tuple(text) for text in texts.values()}) == 3
    requests = {each["lora_name"]: each for each in called(kind, "LoRARequest")}
    assert {name: each["lora_int_id"] for name, each in requests.items()} == {"clerk": 1, "poet": 2}
    assert requests["poet"]["lora_path"] == str(kind.model / "poet")
    told = [used.get("lora_request") for used in called(kind, "generate_async")]
    assert [each and each.lora_name for each in told] == [None, None, "poet", "clerk", "poet"]


async def test_prefixes_never_cross_adapters(kind):
    """Not between two of them, not with the base model; within one they are found."""
    async with running(with_adapters(kind, "poet", "clerk")) as engine:
        cached = {}
        for turn, name in enumerate(["", "poet", "clerk", "", "poet", "clerk"]):
            request = replace(ask(str(turn), PROMPT), adapter=name)
            cached.setdefault(name, []).append((await read(engine.generate(request)))[0].cached)
        assert cached == {name: [0, 12] for name in ("", "poet", "clerk")}


async def test_blocks_of_an_adapter_are_told_as_its_own(kind):
    """In the names that a gateway looks for, by adapter and by salt."""
    kinds = [{}, {"adapter": "poet"}, {"adapter": "poet", "cache_salt": b"s"}]
    async with running(with_adapters(kind, "poet")) as engine:
        heard = []
        engine.follow_kv(heard.append)
        wanted = []
        for turn, changes in enumerate(kinds):
            request = replace(ask(str(turn), PROMPT[:5], max_tokens=1), **changes)
            await read(engine.generate(request))
            space = within(engine.kv_namespace, salt=request.cache_salt, adapter=request.adapter)
            wanted += prompt_names(space, PROMPT[:4], 4)
        async with asyncio.timeout(10):
            while len(stored(heard)) < len(wanted):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert stored(heard) == wanted
        assert len(set(wanted)) == len(kinds)


def stored(heard):
    """Every block that was told, in order."""
    return [block for change in heard for block in change.stored]


async def test_an_adapter_that_is_not_configured_is_refused(kind):
    """By its name, before the engine hears of it."""
    async with running(with_adapters(kind, "poet")) as engine:
        with pytest.raises(InvalidRequest, match="'clerk'"):
            engine.generate(replace(ask("a", [1]), adapter="clerk"))
        assert len(called(kind, "generate_async")) == 1


@pytest.mark.parametrize(
    ("adapters", "lora", "words"),
    [
        ({"poet": "/none"}, LORA, "at /none"),
        ({"poet": "."}, {}, "lora_target_modules"),
        ({"poet": "."}, {"max_lora_rank": 8}, "lora_dir"),
        ({"poet": 1}, LORA, "map names to paths"),
        ({1: "."}, LORA, "map names to paths"),
        ({"": "."}, LORA, "map names to paths"),
        (["poet"], LORA, "must be a mapping"),
    ],
)
async def test_what_is_wrong_with_adapters_is_named_before_anything_is_loaded(
    kind, adapters, lora, words
):
    """And not at the first request for one."""
    with pytest.raises(ModelRejected, match=words):
        kind.engine(lora_config=lora, penstock={"adapters": adapters})
    assert not called(kind, "LLM")


# -- retention


def kept(**members):
    """An extra."""
    return {RETENTION: json.dumps(members)}


async def test_retention_goes_to_the_engine_as_its_own_objects(kind):
    """Ranges with priorities and times, and what is said for generated tokens."""
    async with running(kind.engine()) as engine:
        assert engine.info.extras == {RETENTION}
        system = {"token_start": 0, "token_end": 8, "priority": 90, "duration_ms": 1500}
        rest = {"token_start": 8, "priority": 0}
        asked = kept(
            token_range_retention_configs=[system, rest],
            decode_retention_priority=5,
            decode_duration_ms=250,
        )
        await read(engine.generate(replace(ask("a", PROMPT), extras=asked)))
        await read(engine.generate(replace(ask("b", PROMPT), extras=kept())))
    first, second = (
        used["kv_cache_retention_config"]
        for used in called(kind, "generate_async")
        if "kv_cache_retention_config" in used
    )
    ranges = [vars(each) for each in first.token_range_retention_configs]
    assert ranges == [
        {**system, "duration_ms": timedelta(seconds=1.5)},
        {**rest, "token_end": None, "duration_ms": None},
    ]
    assert first.decode_retention_priority == 5
    assert first.decode_duration_ms == timedelta(milliseconds=250)
    assert second.token_range_retention_configs == []
    assert "decode_retention_priority" not in called(kind, "KvCacheRetentionConfig")[1]


async def test_without_block_reuse_retention_is_refused(kind):
    """It would be kept for nobody."""
    async with running(kind.engine(kv_cache_config={"enable_block_reuse": False})) as engine:
        assert engine.info.extras == frozenset()
        with pytest.raises(Unsupported, match=r"trtllm\.retention"):
            engine.generate(replace(ask("a", [1]), extras=kept()))


async def test_wrong_retention_is_refused_at_once(kind):
    """Before the request stands in line."""
    async with running(kind.engine()) as engine:
        with pytest.raises(InvalidRequest, match="decode_retention_priority") as refused:
            engine.generate(replace(ask("a", [1]), extras=kept(decode_retention_priority=101)))
        assert refused.value.param == "extras"
        assert engine.load().waiting == 0


# -- phases


def phase(request_type, **members):
    """An extra."""
    return {DISAGGREGATED: json.dumps({"request_type": request_type, **members})}


def going_on(told):
    """The extra for the generation phase, from what a context phase answered."""
    return {DISAGGREGATED: json.dumps({**told, "request_type": "generation_only"})}


async def handed(engine, request):
    """What is told at the end of a context phase, and its tokens."""
    (event,) = [event async for event in engine.generate(request)]
    return json.loads(event.extras[DISAGGREGATED]), event


def context(name="context", prompt=PROMPT, **sampling):
    """The request of a context phase."""
    return replace(ask(name, prompt, max_tokens=1, **sampling), extras=phase("context_only"))


async def test_one_engine_computes_the_prompt_and_another_goes_on(kind):
    """The two phases say what one engine says; the state between them is text."""
    async with (
        running(kind.engine(**TRANSFER)) as first,
        running(kind.engine(**TRANSFER)) as second,
    ):
        assert first.info.extras == {RETENTION, DISAGGREGATED}
        whole = (await read(first.generate(ask("whole", PROMPT))))[0]
        told, event = await handed(first, context())
        assert told["request_type"] == "context_only"
        assert told["first_gen_tokens"] == event.tokens == whole.tokens[:1]
        assert told["ctx_request_id"] > 2**62
        assert set(told) == {
            "request_type", "first_gen_tokens", "ctx_request_id", "encoded_opaque_state",
        }  # fmt: skip
        request = replace(ask("rest", PROMPT), extras=going_on(told))
        rest = (await read(second.generate(request)))[0]
        assert (rest.tokens, rest.finish) == (whole.tokens, whole.finish)
        await settled(second, running=0, blocks_used=0)
    fetched = called(kind, "DisaggregatedParams")[-1]
    assert isinstance(fetched["opaque_state"], bytes)
    assert fetched["opaque_state"].endswith(b"\0\xff")


async def test_an_engine_without_a_transceiver_knows_no_phases(kind):
    """It could neither hand on nor fetch."""
    async with running(kind.engine()) as engine:
        with pytest.raises(Unsupported, match=r"trtllm\.disaggregated"):
            engine.generate(context())


async def test_a_context_that_ends_with_its_first_token_hands_on_as_well(kind):
    """A stop token is the client's affair."""
    async with running(kind.engine(**TRANSFER)) as engine:
        stop = (await read(engine.generate(ask("a", PROMPT, max_tokens=1))))[0].tokens[0]
        told, event = await handed(engine, context(stop_tokens=frozenset({stop})))
        assert event.finish.stop_token == stop
        assert told["first_gen_tokens"] == [stop]


@pytest.mark.parametrize(
    ("fault", "value", "words"),
    [
        ("keeps_handoff", True, "does not say where"),
        ("hands_on_more", "multimodal_hashes", "multimodal_hashes"),
    ],
)
async def test_a_context_that_cannot_be_handed_on_fails(kind, faults, fault, value, words):
    """An answer without its state, or with half of it, would leave the other phase with nothing."""
    setattr(faults, fault, value)
    async with running(kind.engine(**TRANSFER)) as engine:
        with pytest.raises(RequestFailed, match=words):
            await handed(engine, context())
        assert engine.load().alive


async def test_a_state_is_fetched_once(kind):
    """A second generation phase of it fails by itself; the engine goes on."""
    async with running(kind.engine(**TRANSFER)) as engine:
        told, _ = await handed(engine, context())
        request = replace(ask("rest", PROMPT), extras=going_on(told))
        await read(engine.generate(request))
        with pytest.raises(RequestFailed, match="no KV cache"):
            await read(engine.generate(request))
        assert engine.load().alive


async def test_a_generation_phase_that_was_lost_is_computed_from_the_prompt(kind):
    """By a moved request, before its first token or behind some: the text is the same."""
    async with running(kind.engine(**TRANSFER)) as engine:
        whole = (await read(engine.generate(ask("whole", PROMPT))))[0].tokens
        told, _ = await handed(engine, context())
        kind.recorder.kept.clear()  # the engine that is lost had fetched it
        for said in (0, 1, 5):
            request = replace(
                ask(f"rest{said}", PROMPT), extras=going_on(told), emitted=(tuple(whole[:said]),)
            )
            assert (await read(engine.generate(request)))[0].tokens == whole[said:]


async def test_a_context_phase_that_was_lost_is_asked_again_and_hands_on(kind):
    """As a moved request says it: with a log that is there and empty."""
    async with running(kind.engine(**TRANSFER)) as engine:
        told, _ = await handed(engine, replace(context(), emitted=((),)))
        assert told["ctx_request_id"] in kind.recorder.kept


class _Lost:
    """An engine that takes a generation phase's state and dies of it before a token."""

    def __init__(self, inner, kind):
        self._inner = inner
        self._kind = kind

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def generate(self, request):
        stream = self._inner.generate(request)
        if request.extras and not request.emitted:
            self._kind.recorder.kept.clear()
            self._inner._life.die(RuntimeError("device lost"), self._inner._traffic.fail_all)
        return stream


async def test_over_replicas_a_phase_whose_engine_dies_ends_with_the_same_text(kind):
    """The set moves it, and the next engine knows that there is nothing to fetch."""
    async with (
        running(kind.engine(**TRANSFER)) as first,
        running(kind.engine(**TRANSFER)) as second,
    ):
        whole = (await read(second.generate(ask("whole", PROMPT))))[0].tokens
        told, _ = await handed(second, context())
        replicas = ReplicaSet()
        replicas.add("a", _Lost(first, kind))
        replicas.add("b", second)
        request = replace(ask("rest", PROMPT), extras=going_on(told))
        assert (await read(replicas.generate(request)))[0].tokens == whole
        assert replicas.counters.migrations == 1


async def test_a_fetch_is_not_aborted_under_way(kind):
    """The call is left once its first token is there; upstream has reported worse otherwise."""
    async with running(kind.engine(**TRANSFER)) as first:
        told, _ = await handed(first, context())
    engine = kind.engine(**TRANSFER)
    gate = kind.recorder.simulator.gate = Gated(NoStep())
    async with running(engine):
        stream = engine.generate(replace(ask("rest", PROMPT), extras=going_on(told)))
        assert await asyncio.to_thread(gate.waiting.wait, 10)
        await stream.aclose()
        assert engine.load().running == 0
        for _ in range(9):  # for the task to hear of it, and to abort if it did so at once
            await asyncio.sleep(0)
        gate.open()
        await engine._traffic.left(10)
    assert kind.recorder.simulator.aborted_fetching == 0
    assert kind.recorder.simulator.empty


BESIDE = {
    "n": ({}, {"n": 2}),
    "max_tokens": ({"max_tokens": 2}, {}),
    "logprobs": ({"logprobs": 1}, {}),
    "min_tokens": ({"min_tokens": 1, "stop_tokens": frozenset({499})}, {}),
    "grammar": ({"grammar": "start: /a/", "stop_tokens": frozenset({499})}, {}),
}


@pytest.mark.parametrize("param", BESIDE)
async def test_what_one_phase_cannot_be_asked_for_is_refused(kind, param):
    """By name, before the engine hears of it."""
    sampling, request = BESIDE[param]
    guided = {"guided_decoding_backend": "llguidance"}
    async with running(kind.engine(**TRANSFER, **guided)) as engine:
        values = {"max_tokens": 1, "temperature": 0.0, **sampling}
        asked = GenerationRequest(RequestId("a"), (1, 2), Sampling(**values), **request)
        with pytest.raises(InvalidRequest) as refused:
            engine.generate(replace(asked, extras=phase("context_only")))
        assert refused.value.param == param
        assert (engine.load().running, engine.load().waiting) == (0, 0)


async def test_what_a_version_does_not_have_is_refused_by_it(kind, version):
    """Names are looked up in what is installed."""
    async with running(kind.engine(**TRANSFER)) as engine:
        request = replace(context(), extras=phase("context_only", disagg_request_id=7))
        if version == "1.2.1":
            with pytest.raises(InvalidRequest, match="has no disagg_request_id"):
                engine.generate(request)
        else:
            await read(engine.generate(request))
            assert called(kind, "DisaggregatedParams")[-1]["disagg_request_id"] == 7
