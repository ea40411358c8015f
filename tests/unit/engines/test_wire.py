"""What gateways and workers write to each other: nothing is lost, nothing unknown breaks it."""

import importlib.resources
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from engines import errors
from engines.api import (
    Capability,
    Embeds,
    EngineInfo,
    EngineLoad,
    Finish,
    FinishReason,
    GenerationRequest,
    Kept,
    RequestId,
    Sampling,
    SharedPrefix,
    ThinkingBudget,
    TierLoad,
    TokenEvent,
    TokenLogprobs,
)
from engines.limits import Limits
from engines.wire.channels import Tls, Unsafe, bind, is_local
from engines.wire.events import (
    delta_message,
    error_of,
    event_of,
    facts_message,
    facts_of,
    failure_message,
    load_message,
    load_of,
)
from engines.wire.facts import WorkerFacts
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.wire.requests import request_message, request_of

RECORDINGS = Path(__file__).parents[2] / "contract" / "wire"
TOKEN = st.integers(0, 2**31 - 1)
TOKENS = st.lists(TOKEN, max_size=5).map(tuple)
SOME = st.lists(TOKEN, min_size=1, max_size=5).map(tuple)
COUNT = st.integers(0, 2**31 - 1)
VALUE = st.floats(allow_nan=False)
SAMPLING = st.builds(
    Sampling,
    max_tokens=COUNT,
    seed=st.integers(-(2**63), 2**63 - 1),
    temperature=VALUE,
    top_k=COUNT,
    top_p=VALUE,
    min_p=VALUE,
    min_tokens=COUNT,
    presence=VALUE,
    frequency=VALUE,
    repetition=VALUE,
    bias=st.dictionaries(TOKEN, VALUE, max_size=3),
    stop_tokens=st.frozensets(TOKEN, max_size=3),
    logprobs=st.none() | COUNT,
    prompt_logprobs=st.none() | COUNT,
    allowed=st.none() | st.frozensets(TOKEN, max_size=3),
    bad_words=st.lists(TOKENS, max_size=2).map(tuple),
    thinking=st.none() | st.builds(ThinkingBudget, COUNT, TOKENS, TOKENS),
    grammar=st.none() | st.text(),
)
EXTRAS = st.dictionaries(st.text(), st.text(), max_size=3)
REQUEST = st.builds(
    GenerationRequest,
    id=st.text().map(RequestId),
    prompt=TOKENS,
    sampling=SAMPLING,
    n=COUNT,
    priority=st.integers(-(2**31), 2**31 - 1),
    cache_salt=st.binary() | st.binary().map(b"\x00shared\x01".__add__),
    pooled=st.booleans(),
    second=COUNT,
    emitted=st.lists(st.none() | TOKENS, max_size=3).map(tuple),
    adapter=st.text(),
    extras=EXTRAS,
    tenant=st.binary(),
    weight=st.integers(1, 2**32 - 1).map(lambda hundredths: hundredths / 100),
    kept=st.none() | st.builds(Kept, st.binary(), COUNT),
    shared=st.none() | st.builds(SharedPrefix, st.binary(), st.integers(1, 2**32 - 1)),
)
LOGPROBS = st.builds(TokenLogprobs, VALUE, st.lists(st.tuples(TOKEN, VALUE), max_size=3).map(tuple))
FINISH = st.builds(Finish, st.sampled_from(FinishReason), COUNT, st.none() | TOKEN)
FACTS = WorkerFacts(
    EngineInfo("m", 128, 500, 4, 200, 8, frozenset(Capability), embeds=Embeds(16, normalised=True)),
    Limits(128, 8, 64, 4, 200, 500, ageing_steps=9),
    version="0.1",
    epoch=2**64 - 1,
    ends=frozenset({2, 3}),
    grammars=True,
    kv_bytes=2**40,
)


def sent(message):
    """The message as the other side reads it."""
    return type(message).FromString(message.SerializeToString())


@given(REQUEST)
def test_a_request_arrives_as_it_was(request_):
    """Every field, at any value it may have."""
    assert request_of(sent(request_message(request_))) == request_


def test_every_field_of_a_request_and_of_an_event_is_drawn():
    """A field that is added must be added to the strategies, and so to the wire."""
    drawn = {Sampling: SAMPLING, GenerationRequest: REQUEST, TokenEvent: EVENT}
    for kind, strategy in drawn.items():
        assert {each.name for each in fields(kind)} == set(strategy.wrapped_strategy.kwargs)


@pytest.mark.parametrize("sampling", [Sampling(2**32), Sampling(1, seed=2**63)])
def test_what_is_beyond_a_field_is_refused(sampling):
    """Rather than cut."""
    with pytest.raises(ValueError, match=r"out of range|too"):
        request_message(GenerationRequest(RequestId("a"), (1,), sampling))


@pytest.mark.parametrize("weight", [0.001, 0.004])
def test_a_weight_that_would_be_none_is_refused(weight):
    """What is not said means one, so it cannot stand for next to nothing."""
    asked = GenerationRequest(RequestId("a"), (1,), Sampling(1), weight=weight)
    with pytest.raises(ValueError, match="too small"):
        request_message(asked)


EVENT = st.builds(
    TokenEvent,
    choice=st.integers(0, 7),
    tokens=SOME.map(list),
    cached=COUNT,
    logprobs=st.none() | st.lists(LOGPROBS, min_size=1),
    finish=st.none() | FINISH,
    prompt_logprobs=st.none() | st.lists(LOGPROBS, min_size=1).map(tuple),
    vector=st.none() | st.lists(VALUE, min_size=1).map(tuple),
    extras=st.none() | EXTRAS.filter(bool),
)


@given(EVENT)
def test_an_event_arrives_as_it_was(event):
    """With its place in the log."""
    delta = sent(delta_message(5, 17, event))
    assert (delta.handle, delta.position) == (5, 17)
    assert event_of(delta, logprobs=event.logprobs is not None) == event


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.EngineError)
    ],
)
def test_an_error_arrives_as_it_was(kind):
    """Its kind, its words and its parameter."""
    given_ = {"param": "n"} if issubclass(kind, errors.InvalidRequest) else {}
    told = error_of(sent(failure_message(1, kind("why", **given_))).failure)
    assert type(told) is kind
    assert str(told) == "why"
    assert getattr(told, "param", "n") == "n"


def test_an_error_of_a_later_version_is_a_dead_engine():
    """So that the request goes on elsewhere."""
    told = error_of(pb.Failure(kind="NotThoughtOf", message="why"))
    assert type(told) is errors.EngineDied


def test_facts_and_loads_arrive_as_they_were():
    """A load with each field told apart."""
    count = len(fields(TierLoad))
    tiers = tuple(TierLoad(tier, *range(10 * tier, 10 * tier + count - 1)) for tier in range(3))
    load = EngineLoad(*range(1, len(fields(EngineLoad)) - 1), alive=False, tiers=tiers)
    assert load_of(sent(load_message(load))) == load
    assert facts_of(sent(facts_message(FACTS))) == FACTS
    info = replace(FACTS.info, adapters=("poet", "clerk"), extras=frozenset({"a", "b"}))
    special = replace(FACTS, info=info)
    assert facts_of(sent(facts_message(special))) == special


def test_what_a_later_version_adds_is_ignored():
    """Fields and capabilities: version N reads what N + 1 wrote."""
    message = facts_message(FACTS)
    message.engine.capabilities.append("telepathy")
    later = message.SerializeToString() + b"\xfa\x3f\x03new"  # field 1023, three bytes
    assert facts_of(pb.WorkerInfo.FromString(later)) == FACTS
    request = GenerationRequest(RequestId("a"), (1,), Sampling(3, stop_tokens=frozenset({7})))
    later = request_message(request).SerializeToString() + b"\xfa\x3f\x03new"
    assert request_of(pb.Request.FromString(later)) == request


def test_the_generated_code_is_what_the_proto_says(tmp_path):
    """Compiled again by any version of protoc, the descriptor is the committed one."""
    source = importlib.resources.files("engines.wire.pb").joinpath("penstock_engine.proto")
    out = tmp_path / "set"
    with importlib.resources.as_file(source) as path:
        assert protoc.main(["protoc", f"-I{path.parent}", f"-o{out}", str(path)]) == 0
    (again,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    assert _plain(again) == _plain(pb.DESCRIPTOR)


def _plain(described):
    """The file as a pool tells it: with nothing that only some compilers write."""
    pool, told = descriptor_pool.DescriptorPool(), descriptor_pb2.FileDescriptorProto()
    if isinstance(described, descriptor_pb2.FileDescriptorProto):
        described = pool.AddSerializedFile(described.SerializeToString())
    described.CopyToProto(told)
    for message in told.message_type:
        for field in (
            *message.field,
            *(each for inner in message.nested_type for each in inner.field),
        ):
            field.ClearField("json_name")
    return told


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:/tmp/x", True),
        ("127.0.0.1:5", True),
        ("127.8.0.1:5", True),
        ("localhost:5", True),
        ("[::1]:5", True),
        ("0.0.0.0:5", False),
        ("[::]:5", False),
        ("worker-3:5", False),
        ("127.0.0.1.example.org:5", False),
    ],
)
def test_addresses_beyond_this_machine_need_tls(address, local):
    """A token on an open wire is no secret."""
    assert is_local(address) is local
    if not local:
        with pytest.raises(Unsafe, match="TLS"):
            bind(None, address, None)


def test_tls_files_that_are_missing_say_so(tmp_path):
    """Before anything listens."""
    missing = Tls(tmp_path / "crt", tmp_path / "key", tmp_path / "ca")
    with pytest.raises(FileNotFoundError):
        bind(None, "0.0.0.0:0", missing)


RECORDED = GenerationRequest(
    RequestId("r-1"),
    (1, 300, 70_000),
    Sampling(
        64, seed=-5, temperature=0.5, top_k=40, top_p=0.9, min_p=0.01, min_tokens=2,
        presence=0.25, frequency=0.5, repetition=1.1, bias={7: -1.5},
        stop_tokens=frozenset({2, 3}), logprobs=2, prompt_logprobs=0, allowed=frozenset({1, 2}),
        bad_words=((4, 5),), thinking=ThinkingBudget(9, (), (6,)), grammar='start: "a"',
    ),
    n=2,
    priority=-3,
    cache_salt=b"s",
    emitted=((8, 9), None),
)  # fmt: skip


@pytest.mark.parametrize("recording", sorted(RECORDINGS.glob("*.json")), ids=lambda path: path.stem)
def test_what_earlier_versions_wrote_means_the_same_today(recording):
    """Bytes that each version wrote, kept for ever: fields are only added."""
    written = {
        name: bytes.fromhex(text) for name, text in json.loads(recording.read_text()).items()
    }
    command = pb.CommandFrame.FromString(written["CommandFrame"])
    assert [(one.handle, request_of(one.request)) for one in command.submits] == [(3, RECORDED)]
    assert [(one.handle, one.HasField("choice"), one.choice) for one in command.cancels] == [
        (2, False, 0),
        (3, True, 1),
    ]
    frame = pb.StepFrame.FromString(written["StepFrame"])
    said, failed = frame.deltas
    assert (frame.number, frame.draining, load_of(frame.load)) == (
        4,
        True,
        EngineLoad(*range(1, 10)),
    )
    assert (said.handle, said.position) == (3, 2)
    assert event_of(said, logprobs=True) == TokenEvent(
        0,
        [8, 9],
        16,
        [TokenLogprobs(-0.5, ((8, -0.5), (9, -1.0))), TokenLogprobs(-2.0)],
        Finish(FinishReason.STOP, 4, 9),
    )
    error = error_of(failed.failure)
    assert (failed.handle, type(error), str(error)) == (5, errors.ContextOverflow, "too long")
    assert error.param == "prompt"
    assert facts_of(pb.WorkerInfo.FromString(written["WorkerInfo"])) == FACTS
