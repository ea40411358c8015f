"""An SMG server that lies, or does not tell what it should: contained, and told."""

import asyncio
import logging
import sys

import pytest

from engines.api import Capability
from engines.errors import EngineDied, EngineUnavailable, ModelRejected, RequestFailed, Unsupported
from engines.smg.engine import SmgEngine
from engines.smg.facts import Given
from engines.smg.stubs import load_stubs
from engines.wire.channels import Unsafe
from tests.conformance.test_engine_contract import settled
from tests.support.engines import ask, read, running

smg = pytest.importorskip("tests.support.smg", reason="needs the SMG stubs: penstock[smg]")
pb, END = smg.pb, smg.END

pytestmark = pytest.mark.anyio


@pytest.fixture
def kind():
    """Makes engines with servers of their own."""
    return smg.Kind()


# -- servers that lie


def chunk(*tokens, **more):
    return pb.GenerateResponse(chunk=pb.GenerateStreamChunk(token_ids=tokens, **more))


def complete(*tokens, **more):
    return pb.GenerateResponse(complete=pb.GenerateComplete(output_token_ids=tokens, **more))


SCORE = pb.TokenLogprob(token_id=9, logprob=-1.0)
NAN = pb.TokenLogprob(token_id=1, logprob=float("nan"))
LIES = {
    "another sequence": ([chunk(1, sequence_index=1)], EngineDied),
    "another request": ([pb.GenerateResponse(request_id="x", chunk=chunk(1).chunk)], EngineDied),
    "nothing": ([pb.GenerateResponse()], EngineDied),
    "other tokens in the end": ([chunk(1, 2), complete(1, 3)], EngineDied),
    "the score of another token": ([chunk(1, logprobs=[SCORE])], EngineDied),
    "more scores than tokens": ([chunk(9, logprobs=[SCORE, SCORE])], EngineDied),
    "a score that is no number": ([chunk(1, logprobs=[NAN])], RequestFailed),
    "a token of no vocabulary": ([chunk(500)], RequestFailed),
    "no end": ([chunk(1)], RequestFailed),
    "an end without a reason": ([chunk(1), complete(1)], RequestFailed),
    "a reason that is none": ([chunk(1), complete(1, finish_reason="error")], RequestFailed),
    "a stop nobody asked for": ([complete(1, finish_reason="stop")], RequestFailed),
    "too few scores": ([complete(1, finish_reason="length")], RequestFailed),
}


def script(engine, monkeypatch, responses):
    async def generate(request, context):
        for response in responses:
            answer = pb.GenerateResponse()
            answer.CopyFrom(response)
            answer.request_id = response.request_id or request.request_id
            yield answer

    monkeypatch.setattr(engine.servicer, "_run", lambda request, bias: generate(request, None))


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_fails_the_stream_it_was_told_to(kind, monkeypatch, name):
    """Nobody reads it, and no other stream is touched."""
    responses, error = LIES[name]
    async with running(kind.engine()) as engine:
        with monkeypatch.context() as patch:
            script(engine, patch, responses)
            with pytest.raises(error):
                await read(engine.generate(ask("a", [1, 2], logprobs=0)))
        assert len((await read(engine.generate(ask("b", [1, 2]))))[0].tokens) == 16
        await settled(engine, running=0, blocks_used=0, alive=True)


async def test_tokens_after_the_end_are_not_read(kind, monkeypatch, caplog):
    """The finish stands, and the log tells of the lie."""
    end = complete(1, 2, finish_reason="length")
    async with running(kind.engine()) as engine:
        script(engine, monkeypatch, [chunk(1, 2), end, chunk(3)])
        with caplog.at_level(logging.ERROR):
            answer = (await read(engine.generate(ask("a", [1, 2], max_tokens=2))))[0]
            await settled(engine, running=0)
        assert answer.tokens == [1, 2]
        assert "after the end" in caplog.text


async def test_more_than_was_asked_for_is_cut_and_aborted(kind, monkeypatch):
    """It may be what a server had drafted."""
    async with running(kind.engine()) as engine:
        script(engine, monkeypatch, [chunk(*range(20)), chunk(21)])
        answer = (await read(engine.generate(ask("a", [1, 2], max_tokens=16))))[0]
        assert answer.tokens == list(range(16))
        assert answer.finish.generated == 16


# -- what a server is


async def test_what_neither_side_tells_is_asked_for_by_name(kind):
    """All of it at once."""
    kind.told.clear()
    engine = kind.engine(num_blocks=None, max_running=None)
    engine._sizes |= {"num_blocks": 10, "max_running": 2}
    try:
        with pytest.raises(ModelRejected, match="max_context, max_running, num_blocks, vocab_size"):
            await engine.start()
    finally:
        await engine.stop(0)


async def test_what_the_operator_gives_goes_before_what_the_server_tells(kind):
    """The tokenizer's size may lack added tokens; such a server refuses biases by their length."""
    given = {"max_context": 64, "vocab_size": 510, "name": "mine", "max_running": 3}
    async with running(kind.engine(**given)) as engine:
        info = engine.info
        assert (info.model, info.max_context, info.vocab_size) == ("mine", 64, 510)
        assert (info.max_running, info.num_blocks, info.block_size) == (3, 200, 4)
        assert info.capabilities == {Capability.SAMPLING, Capability.LOGPROBS}
        with pytest.raises(Unsupported, match="hold stop tokens back"):
            engine.generate(ask("a", [505], min_tokens=1, stop_tokens=frozenset({END})))
        assert len((await read(engine.generate(ask("b", [505]))))[0].tokens) == 16
    async with running(kind.engine()) as engine:
        assert engine.info.model == "test"


async def test_what_nobody_knows_is_no_honour(kind):
    """A word that means nothing is refused, with those that do."""
    engine = kind.engine(honours=frozenset({"grammar"}))
    try:
        with pytest.raises(ModelRejected, match=r"unknown grammar; known: .*llguidance"):
            await engine.start()
    finally:
        await engine.stop(0)


@pytest.mark.parametrize("who", ["unwell", "nobody", "another service"])
async def test_a_server_that_cannot_serve_is_unavailable(kind, monkeypatch, who):
    """Its trouble is told; whoever is no such server does not answer as one."""
    monkeypatch.setattr("engines.smg.server._CONNECT_S", 0.3)
    engine = kind.engine()
    if who == "unwell":
        kind.server["trouble"] = "Executor is not available"
    elif who == "nobody":
        monkeypatch.setattr(engine, "_serve", lambda: asyncio.sleep(0))
    else:
        monkeypatch.setattr(smg.rpc, "add_TrtllmServiceServicer_to_server", lambda *_: None)
    words = {"unwell": "not available", "nobody": "DEADLINE", "another service": "UNIMPLEMENTED"}
    try:
        with pytest.raises(EngineUnavailable, match=words[who]):
            await engine.start()
    finally:
        await engine.stop(0)


async def test_an_address_beyond_this_machine_needs_tls():
    """The server itself has none, so tokens would travel in the open."""
    engine = SmgEngine("10.0.0.7:8001", Given(num_blocks=1))
    with pytest.raises(Unsafe, match="TLS"):
        await engine.start()
    await engine.stop(0)


def test_without_the_stubs_the_extra_is_named(monkeypatch):
    """They are no part of a plain install."""
    monkeypatch.setitem(sys.modules, "smg_grpc_proto", None)
    with pytest.raises(ModelRejected, match=r"penstock\[smg\]"):
        load_stubs()
