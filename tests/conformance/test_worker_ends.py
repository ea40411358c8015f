"""Workers that end, or do not answer: nothing that they have said or keep is lost."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest

from engines.errors import EngineUnavailable
from engines.remote import RemoteEngine
from engines.replicas import find
from engines.wire.channels import SERVICE, bind, server
from engines.wire.events import facts_message
from engines.wire.pb import penstock_engine_pb2 as pb
from tests.conformance.test_attach import gateway, request, worker
from tests.support.engines import limits_for, read, running, stepped
from tests.support.hosted import TOKEN, Hosted

pytestmark = pytest.mark.anyio
LONG = 2000


async def rest_of(stream):
    """What comes until its worker has gone."""
    tokens = []
    try:
        async for event in stream:
            tokens += event.tokens
    except EngineUnavailable:
        return tokens
    raise AssertionError("it came to its end")


async def test_a_worker_that_ends_tells_all_that_it_has_computed():
    """Else it would be computed again elsewhere."""
    limits = limits_for(max_context=4096, num_blocks=4096)
    async with running(Hosted(stepped(limits), limits)) as engine:
        asked = [request(f"r{one}") for one in range(4)]
        asked = [replace(one, sampling=replace(one.sampling, max_tokens=LONG)) for one in asked]
        streams = [engine.generate(one) for one in asked]
        firsts = [len((await anext(stream)).tokens) for stream in streams]
        runs = {run.request.id: run for run in engine.server._runs._running}
        engine.server.drain()
        await engine.server.stop(1)
        rests = [len(await rest_of(stream)) for stream in streams]
        told = [first + rest for first, rest in zip(firsts, rests, strict=True)]
        assert told == [runs[one.id]._lengths[0] for one in asked]
        assert max(told) < LONG


@asynccontextmanager
async def silent(tmp_path, facts):
    """A worker that never says what it keeps."""

    async def info(_request, _context):
        return facts_message(facts)

    async def find_nothing(_request, _context):
        await asyncio.Event().wait()

    async def session(_commands, _context):
        await asyncio.Event().wait()
        yield pb.StepFrame()

    made = server(TOKEN)
    serialize = lambda message: message.SerializeToString()  # noqa: E731
    handlers = {
        "Info": grpc.unary_unary_rpc_method_handler(info, None, serialize),
        "Find": grpc.unary_unary_rpc_method_handler(find_nothing, None, serialize),
        "Session": grpc.stream_stream_rpc_method_handler(session, None, serialize),
    }
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = bind(made, f"unix:{tmp_path / 'silent'}", None)
    await made.start()
    remote = RemoteEngine(address, token=TOKEN)
    async with running(remote):
        yield remote
    await made.stop(0)


async def test_what_a_worker_does_not_say_is_not_taken_for_nothing(tmp_path):
    """Where another has it, that is the answer; where none says so, nobody knows."""
    async with worker() as (engine, _):
        first = await gateway(engine)
        await read(first.generate(request()))
        async with silent(tmp_path, first.facts) as other:
            engines = {"one": first, "other": other}
            with pytest.raises(EngineUnavailable):
                await other.find("r")
            assert (await find(engines, "r")).replica == "one"
            with pytest.raises(EngineUnavailable):
                await find(engines, "nobody's")
        assert await find({"one": first}, "nobody's") is None
        await first.stop(0)
