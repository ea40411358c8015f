"""A worker and the session with it, when something goes wrong: each fault is contained and told."""

import asyncio
import math
import socket
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2

from engines.api import Capability, TokenEvent
from engines.errors import EngineDied, EngineUnavailable, InvalidRequest, RequestFailed
from engines.remote import RemoteEngine
from engines.wire import channels
from engines.wire.channels import SERVICE, bind, channel, metadata, server
from engines.wire.events import delta_message, facts_message
from engines.wire.facts import WorkerFacts
from engines.wire.pb import penstock_engine_pb2 as pb
from tests.support.engines import Gated, ask, ledger, limits_for, read, running, stepped
from tests.support.hosted import TOKEN, Hosted

pytestmark = pytest.mark.anyio


def hosted(runner=ledger, **changes):
    limits = limits_for(**changes)
    return Hosted(stepped(limits, runner), limits)


def gated(steps=0):
    limits = limits_for()
    gate = Gated(ledger(limits), steps)
    return Hosted(stepped(limits, lambda _: gate), limits), gate


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a test waits for a fact
            await asyncio.sleep(0.001)


# -- sessions that break


async def test_a_worker_that_goes_fails_every_stream_once(tmp_path):
    """With EngineDied; the owner hears it once, and nothing more is taken."""
    engine, gate = gated(steps=3)
    deaths = []
    engine.remote._on_death = deaths.append
    async with running(engine):
        streams = [engine.generate(ask(f"s{i}", [1, 2, i], max_tokens=50)) for i in range(5)]
        for stream in streams:
            await anext(stream)
        await engine.server.stop(0)
        for stream in streams:
            with pytest.raises(EngineDied, match="session"):
                await read(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert [type(death) for death in deaths] == [EngineDied]
        assert not engine.load().alive
        with pytest.raises(EngineDied):
            engine.generate(ask("late", [1]))
        gate.open()
        await until(lambda: engine.inner.load().blocks_used == 0)


async def test_a_gateway_that_goes_leaves_nothing_on_the_worker():
    """Its requests end within one step, wherever they are; another gateway's go on."""
    engine, gate = gated()
    async with running(engine):
        other = RemoteEngine(engine.address, token=TOKEN)
        await other.start()
        kept = engine.generate(ask("kept", [1, 2, 3], max_tokens=12))
        lost = [other.generate(ask(f"l{i}", [4, 5, i], max_tokens=90, n=2)) for i in range(5)]
        begun = asyncio.create_task(anext(lost[0]))
        while not begun.done():
            gate.allow()
            await asyncio.sleep(0.001)
        await other.stop(0)
        gate.open()
        assert len((await read(kept))[0].tokens) == 12
        await until(lambda: engine.inner.load().blocks_used == 0)
        with pytest.raises(EngineUnavailable):
            await read(lost[1])
        assert not engine.inner._boxes


async def test_a_session_lives_through_silence(monkeypatch):
    """Pings in it are no offence: with gRPC's defaults the worker hangs up at the third."""
    often = [
        (name, 50 if name == "grpc.keepalive_time_ms" else value)
        for name, value in channels._KEEPALIVE
    ]
    monkeypatch.setattr(channels, "_KEEPALIVE", tuple(often))
    async with running(hosted()) as engine:
        await asyncio.sleep(4.5)  # so often that the third came after 3 s
        assert engine.load().alive
        assert (await read(engine.generate(ask("a", [1, 2]))))[0].finish is not None


async def test_two_gateways_may_use_the_same_id():
    """Ids are a gateway's own."""
    async with running(hosted()) as engine:
        other = RemoteEngine(engine.address, token=TOKEN)
        await other.start()
        one, two = engine.generate(ask("a", [1, 2])), other.generate(ask("a", [3, 4]))
        answers = await asyncio.gather(read(one), read(two))
        assert len(answers[0][0].tokens) == len(answers[1][0].tokens) == 16
        await other.stop(0)


async def test_a_gateway_that_does_not_read_gets_merged_events_and_slows_nobody():
    """What waits for it is bounded by the tokens: one event for each choice."""
    async with running(hosted()) as engine:
        slow = channel(engine.address, None)
        talk = slow.stream_stream(
            f"/{SERVICE}/Session", pb.CommandFrame.SerializeToString, pb.StepFrame.FromString
        )(metadata=metadata(TOKEN))
        frame = pb.CommandFrame()
        for handle in range(1, 5):
            submit = frame.submits.add(handle=handle)
            submit.request.prompt[:] = [1, 2, handle]
            submit.request.n = 1
            submit.request.sampling.max_tokens = 100
            submit.request.sampling.top_p = submit.request.sampling.repetition = 1
        await talk.write(frame)
        fast = await read(engine.generate(ask("fast", [4, 5, 6], max_tokens=60)))
        assert len(fast[0].tokens) == 60
        tokens = dict.fromkeys(range(1, 5), 0)
        while sum(tokens.values()) < 400:
            for delta in (await talk.read()).deltas:
                assert delta.position == tokens[delta.handle]
                tokens[delta.handle] += len(delta.tokens)
        talk.cancel()
        await slow.close()


async def test_a_drain_lets_run_what_runs_and_takes_no_more():
    """The worker ends when it is empty, and says so before."""
    engine, gate = gated(steps=1)
    async with running(engine):
        stream = engine.generate(ask("a", [1, 2, 3], max_tokens=20))
        await anext(stream)
        await engine.remote.drain()
        with pytest.raises(EngineUnavailable, match="draining"):
            engine.generate(ask("b", [1]))
        ended = asyncio.create_task(engine.server.drained())
        gate.open()
        rest = await read(stream)
        assert len(rest[0].tokens) >= 19
        await asyncio.wait_for(ended, 10)
        await until(lambda: not engine.load().alive)
        with pytest.raises(EngineUnavailable):
            engine.generate(ask("c", [1]))


async def test_a_worker_that_drains_by_itself_is_not_asked():
    """What crosses the news is refused as unavailable: it goes on elsewhere."""
    engine, gate = gated(steps=1)
    async with running(engine):
        first = engine.generate(ask("a", [1, 2, 3], max_tokens=5))
        await anext(first)
        engine.server.drain()
        crossing = engine.generate(ask("b", [1, 2]))
        with pytest.raises(EngineUnavailable, match="draining"):
            await read(crossing)
        assert engine.remote.draining
        gate.open()
        await read(first)


# -- who may talk to a worker


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x"])
async def test_a_wrong_token_is_refused_everywhere(token):
    """Facts, sessions, health and reflection alike."""
    async with running(hosted()) as engine:
        remote = RemoteEngine(engine.address, token=token)
        with pytest.raises(EngineUnavailable, match="UNAUTHENTICATED"):
            await remote.start()
        await remote.stop(0)
        line = channel(engine.address, None)
        for path in (f"/{SERVICE}/Info", f"/{SERVICE}/Drain", "/grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await line.unary_unary(path)(b"", metadata=metadata(token))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        for path in (
            f"/{SERVICE}/Session",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ):
            call = line.stream_stream(path)(metadata=metadata(token))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await line.close()
        assert (await read(engine.generate(ask("a", [1]))))[0].finish is not None


async def test_health_is_told_to_who_knows_the_token():
    """By the standard protocol; not serving while it drains."""
    async with running(hosted()) as engine:
        line = channel(engine.address, None)
        check = line.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        states = health_pb2.HealthCheckResponse.ServingStatus
        told = await check(health_pb2.HealthCheckRequest(service=SERVICE), metadata=metadata(TOKEN))
        assert told.status == states.Value("SERVING")
        engine.server.drain()
        await engine.server.drained()
        told = await check(health_pb2.HealthCheckRequest(service=SERVICE), metadata=metadata(TOKEN))
        assert told.status == states.Value("NOT_SERVING")
        await line.close()


@pytest.mark.parametrize(
    "noise", [b"\x80\x04\x95cos\nsystem\n", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 64]
)
async def test_noise_on_the_socket_changes_nothing(noise):
    """It is no gRPC, and is hung up on."""
    async with running(hosted()) as engine:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(engine.address.removeprefix("unix:"))
            raw.sendall(noise)
            assert (await read(engine.generate(ask("a", [1, 2]))))[0].finish is not None


async def test_commands_that_cannot_be_read_end_their_session_only():
    """The worker goes on for others."""
    async with running(hosted()) as engine:
        line = channel(engine.address, None)
        call = line.stream_stream(f"/{SERVICE}/Session")(metadata=metadata(TOKEN))
        await call.write(b"\xff" * 40)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _read_all(call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await line.close()
        assert (await read(engine.generate(ask("a", [1, 2]))))[0].finish is not None


async def _read_all(call):
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_request_that_the_worker_refuses_fails_alone():
    """Such as one that this side would have refused, from a gateway of another version."""
    async with running(hosted()) as engine:
        fine = engine.generate(ask("a", [1, 2]))
        engine.remote._facts = WorkerFacts(
            engine.info, limits_for(vocab_size=9000), "1", 1, frozenset()
        )
        with pytest.raises(InvalidRequest, match="vocabulary of 500"):
            await read(engine.generate(ask("b", [8000])))
        assert (await read(fine))[0].finish is not None


# -- workers that lie


FACTS = WorkerFacts(
    stepped(limits_for(), capabilities=frozenset({Capability.LOGPROBS})).info, limits_for(), "1", 1
)


@asynccontextmanager
async def liar(tmp_path, *frames):
    """A worker that answers the first submit with these frames, whatever was asked."""

    async def session(commands, _context):
        await anext(aiter(commands))
        for frame in frames:
            yield frame
        await asyncio.Event().wait()

    async def info(_request, _context):
        return facts_message(FACTS)

    made = server(TOKEN)
    serialize = lambda message: message.SerializeToString()  # noqa: E731
    handlers = {
        "Info": grpc.unary_unary_rpc_method_handler(info, None, serialize),
        "Session": grpc.stream_stream_rpc_method_handler(
            session, pb.CommandFrame.FromString, serialize
        ),
    }
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = bind(made, f"unix:{tmp_path / 'liar'}", None)
    await made.start()
    remote = RemoteEngine(address, token=TOKEN)
    await remote.start()
    try:
        yield remote
    finally:
        await remote.stop(0)
        await made.stop(0)


def told(*tokens, handle=1, choice=0, position=0, number=1, **more):
    event = TokenEvent(choice, list(tokens), 0)
    frame = pb.StepFrame(number=number, deltas=[delta_message(handle, position, event)])
    finish = more.pop("finish", None)
    if finish is not None:
        frame.deltas[0].finish.reason = "length"
        frame.deltas[0].finish.generated = finish
    assert not more
    return frame


LIES = {
    "a token of no vocabulary": [told(500)],
    "a choice that was not asked for": [told(1, choice=1)],
    "a request that was not made": [told(1, handle=2)],
    "a frame number twice": [told(1), told(2, position=1)],
    "a frame number left out": [told(1, number=2)],
    "the same tokens twice": [told(1, 2), told(1, 2, number=2)],
    "tokens left out": [told(1), told(3, position=2, number=2)],
    "more than was asked for": [told(*range(17))],
    "a count that is not so": [told(1, 2, finish=3)],
    "a reason that is none": [
        pb.StepFrame(
            number=1,
            deltas=[pb.Delta(handle=1, tokens=[1], finish=pb.Finish(reason="x", generated=1))],
        )
    ],
    "log-probabilities of nothing": [
        pb.StepFrame(
            number=1,
            deltas=[
                pb.Delta(handle=1, tokens=[1], logprobs=[pb.TokenLogprobs(), pb.TokenLogprobs()])
            ],
        )
    ],
    "alternatives without values": [
        pb.StepFrame(
            number=1,
            deltas=[pb.Delta(handle=1, tokens=[1], logprobs=[pb.TokenLogprobs(top_tokens=[1])])],
        )
    ],
}


@pytest.mark.parametrize("name", LIES)
async def test_a_worker_that_lies_is_dead(tmp_path, name):
    """Its streams fail before anybody reads the lie."""
    async with liar(tmp_path, *LIES[name]) as engine:
        stream = engine.generate(ask("a", [1, 2], logprobs=1))
        with pytest.raises(EngineDied):
            await read(stream)
        with pytest.raises(EngineDied):
            engine.generate(ask("b", [1]))


async def test_tokens_after_a_finish_are_a_lie(tmp_path):
    """They never reach the reader, and the other choice goes on elsewhere."""
    frames = [told(1, 2, finish=2), told(3, position=2, number=2)]
    async with liar(tmp_path, *frames) as engine:
        stream = engine.generate(ask("a", [1, 2], n=2))
        with pytest.raises(EngineDied):
            await read(stream)


async def test_numbers_that_are_none_fail_their_request_alone(tmp_path):
    """NaN says that this computation went wrong; the engine may be well."""
    bad = told(1, handle=1)
    bad.deltas[0].logprobs.add(logprob=math.nan)
    good = told(4, 5, handle=2, number=2, finish=2)
    async with liar(tmp_path, bad, good) as engine:
        first = engine.generate(ask("a", [1, 2], logprobs=0))
        second = engine.generate(ask("b", [1, 2]))
        with pytest.raises(RequestFailed, match="numbers"):
            await read(first)
        assert (await read(second))[0].tokens == [4, 5]


async def test_facts_that_make_no_sense_are_refused(tmp_path):
    """Such as steps with no room for a token."""
    made = server(TOKEN)

    async def info(_request, _context):
        return pb.WorkerInfo(version="9").SerializeToString()

    handlers = {"Info": grpc.unary_unary_rpc_method_handler(info)}
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = bind(made, f"unix:{tmp_path / 'odd'}", None)
    await made.start()
    remote = RemoteEngine(address, token=TOKEN)
    with pytest.raises(EngineUnavailable, match="makes no sense"):
        await remote.start()
    await remote.stop(0)
    await made.stop(0)
