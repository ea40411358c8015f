"""KV events over a real wire: what a gateway believes of a worker's cache is what is in it."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from engines.kv_changes import KvChange
from engines.kv_feed import KvFeed
from engines.kv_log import KvLog, Tail
from engines.wire.channels import KV_EVENTS, SERVICE, bind, channel, metadata, server
from engines.wire.facts import WorkerFacts
from engines.wire.kv import batch_message, batch_of
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.worker import WorkerServer
from kvcache.naming import chain, prompt_names, root_name, within
from tests.support.engines import ask, limits_for, read, running, stepped
from tests.support.fake_engine import FakeEngine
from tests.support.hosted import TOKEN, Hosted

pytestmark = pytest.mark.anyio


class Mirror:
    """Who hears of a cache, as a directory does."""

    def __init__(self):
        self.names, self.clears, self.heard = set(), 0, 0

    def __call__(self, change):
        self.heard += 1
        if change.cleared:
            self.clears += 1
            self.names.clear()
        assert self.names.issuperset(change.removed)
        assert self.names.isdisjoint(change.stored)
        self.names -= set(change.removed)
        self.names |= set(change.stored)


def hosted(**changes):
    limits = limits_for(**changes)
    return Hosted(stepped(limits), limits)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a test waits for a fact
            await asyncio.sleep(0.001)


def findable(engine):
    """The names of all that an idle engine's pool can find, from the tokens in its index."""
    names = {}
    for _, sealed in engine._scheduler.pool._index:
        above, tokens = sealed.key
        parent = root_name(above) if isinstance(above, bytes) else names[above]
        names[sealed.serial] = chain(parent, tokens)
    return set(names.values())


async def test_a_gateway_knows_what_a_worker_has():
    """Blocks by the names that it computes itself from a prompt, until they are evicted."""
    async with running(hosted(num_blocks=40)) as engine:
        mirror, space = Mirror(), engine.remote.kv.kv_namespace
        await read(engine.generate(ask("before", [*range(20)], max_tokens=2)))
        engine.remote.kv.follow_kv(mirror)
        await until(lambda: mirror.names == findable(engine.inner) != set())
        assert set(prompt_names(space, range(20), 4)) <= mirror.names
        for number in range(12):  # far more than fits
            prompt = [number, *range(30)]
            await read(engine.generate(ask(f"r{number}", prompt, max_tokens=6)))
        await until(lambda: mirror.names == findable(engine.inner))
        assert set(prompt_names(space, prompt, 4)) <= mirror.names
        assert not mirror.names & set(prompt_names(space, range(20), 4)), "evicted"
        assert mirror.clears == 1


async def test_salts_and_models_have_names_of_their_own():
    """Two tenants that ask the same share nothing; two workers of a model share all."""
    async with running(hosted()) as one, running(hosted()) as other:
        assert one.remote.kv.kv_namespace == other.remote.kv.kv_namespace != b""
        space = one.remote.kv.kv_namespace
        roots = {
            within(space, salt=b""), within(space, salt=b"x"),
            within(space, salt=b"", adapter="x"), within(space, salt=b"x", adapter="x"),
        }  # fmt: skip
        assert len({tuple(prompt_names(root, range(8), 4)) for root in roots}) == 4


async def test_nobody_listening_costs_nothing():
    """No name is computed before somebody asks, and then only once."""
    async with running(hosted()) as engine:
        await read(engine.generate(ask("a", [*range(20)])))
        pool = engine.inner._scheduler.pool
        assert (pool._names, pool._listeners, engine.inner._telling) == ({}, (), None)
        assert not engine.server._kv._followed


async def test_many_listen_to_one_worker():
    """Each gateway has its own place; the engine tells everything once."""
    async with running(hosted()) as engine, link(engine) as feeds:
        mirrors = [Mirror() for _ in range(3)]
        for mirror in mirrors:
            feeds().follow_kv(mirror)
        await read(engine.generate(ask("a", [*range(40)])))
        await until(lambda: all(mirror.names == findable(engine.inner) for mirror in mirrors))


@asynccontextmanager
async def link(engine, rest=lambda _: asyncio.sleep(0)):
    """Makes feeds at a channel of their own."""
    made, pipe = [], channel(engine.address, None)

    def feed():
        made.append(KvFeed(pipe, engine.facts, TOKEN, rest=rest))
        return made[-1]

    try:
        yield feed
    finally:
        for one in made:
            await one.stop()
        await pipe.close()


async def test_an_engine_without_events_says_so():
    """UNIMPLEMENTED in clear words, and the follower gives up."""
    inner = FakeEngine()
    engine = Hosted(inner, limits_for())
    await engine.server.start(engine.address)
    pipe = channel(engine.address, None)
    call = pipe.unary_stream(KV_EVENTS, pb.KvEventsRequest.SerializeToString, pb.KvBatch.FromString)
    with pytest.raises(grpc.aio.AioRpcError, match="tells no KV events") as refusal:
        await anext(aiter(call(pb.KvEventsRequest(), metadata=metadata(TOKEN))))
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    feed, mirror = KvFeed(pipe, engine.facts, TOKEN), Mirror()
    assert feed.kv_namespace == b""
    feed.follow_kv(mirror)
    await feed._following
    assert mirror.heard == 0
    with pytest.raises(RuntimeError):
        feed.follow_kv(mirror)
    await pipe.close()
    await engine.server.stop(0)
    engine.folder.cleanup()


async def test_a_draining_worker_ends_the_calls_at_once():
    """An open call of this kind never keeps a worker from ending."""
    async with running(hosted()) as engine:
        mirror = Mirror()
        engine.remote.kv.follow_kv(mirror)
        await until(lambda: mirror.clears)
        engine.server.drain()
        async with asyncio.timeout(5):
            await engine.server.stop(60)


class Told(FakeEngine):
    """An engine whose cache changes as a test says."""

    kv_namespace = b"of a test"

    def follow_kv(self, listener):
        self.tell = listener


async def test_a_reader_that_does_not_read_is_told_the_whole_when_it_does(tmp_path):
    """Nothing waits for it but what gRPC holds; another reader is up to date meanwhile."""
    inner = Told()
    facts = WorkerFacts(inner.info, limits_for(), "0", 7, kv_namespace=inner.kv_namespace)
    worker = WorkerServer(inner, facts, token=TOKEN)
    address = await worker.start(f"unix:{tmp_path}/worker")
    lines = [channel(address, None), channel(address, None)]
    ask_for = lines[0].unary_stream(
        KV_EVENTS, pb.KvEventsRequest.SerializeToString, pb.KvBatch.FromString
    )
    call = ask_for(pb.KvEventsRequest(epoch=7), metadata=metadata(TOKEN))
    slow, fast, tail = Mirror(), Mirror(), Tail(7)
    for change in tail.take(batch_of(await call.read())):
        slow(change)
    feed = KvFeed(lines[1], facts, TOKEN)
    feed.follow_kv(fast)
    await until(lambda: fast.clears == 1)
    names = [number.to_bytes(16) for number in range(400_000)]  # 6.4 MB of them
    for start in range(0, len(names), 10_000):
        inner.tell(KvChange(stored=tuple(names[start : start + 10_000])))
        await until(lambda there=start + 10_000: len(fast.names) == there)
    inner.tell(KvChange(removed=tuple(names[::2])))
    await until(lambda: len(fast.names) == 200_000)
    assert worker._kv._log._held <= 1 << 17
    while slow.names != fast.names:
        for change in tail.take(batch_of(await call.read())):
            slow(change)
    assert slow.clears == 2, "it was given a snapshot on the way"
    call.cancel()
    await feed.stop()
    for line in lines:
        await line.close()
    await worker.stop(0)


class Liar:
    """A worker that answers each KvEvents call with the next of a list, then hangs up or waits."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.server = server(TOKEN)

    async def start(self, address):
        handler = grpc.unary_stream_rpc_method_handler(
            self._events, pb.KvEventsRequest.FromString, lambda told: told.SerializeToString()
        )
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"KvEvents": handler}),)
        )
        bind(self.server, address, None)
        await self.server.start()

    async def _events(self, request, _):
        self.asked.append((request.epoch, request.after))
        for batch in self.answers.pop(0) if self.answers else ():
            yield batch
        if not self.answers:
            await asyncio.Event().wait()


def told(sequence, *stored, **fields):
    """A batch that stores these."""
    names = b"".join(number.to_bytes(16) for number in stored)
    changes = [pb.KvChange(stored=names)] if stored else []
    return pb.KvBatch(**{"epoch": 7, "sequence": sequence, "changes": changes, **fields})


def numbers(mirror):
    return {int.from_bytes(name) for name in mirror.names}


@pytest.mark.parametrize(
    ("first", "asked"),
    [
        ([told(3, 1, snapshot=True), told(4, 2)], [(7, 0), (7, 4)]),
        ([told(3, 1, snapshot=True), told(5, 2)], [(7, 0), (7, 0)]),
        ([told(3, 1, snapshot=True, more=True)], [(7, 0), (7, 0)]),
        ([told(4, 2)], [(7, 0), (7, 0)]),
        ([told(3, 1, snapshot=True), told(4, epoch=8)], [(7, 0), (7, 0)]),
        (
            [told(3, 1, snapshot=True), told(4, changes=[pb.KvChange(stored=b"x" * 17)])],
            [(7, 0), (7, 0)],
        ),
    ],
    ids=["cut", "gap", "half", "no-snapshot", "epoch", "no-names"],
)
async def test_a_reader_believes_only_what_follows(tmp_path, first, asked):
    """After a cut it goes on from where it was; after what cannot be it asks for everything."""
    rest = [told(5, 3)] if asked[1][1] else [told(9, 1, 2, 3, snapshot=True)]
    liar, mirror = Liar(first, rest), Mirror()
    address = f"unix:{tmp_path}/liar"
    await liar.start(address)
    pipe = channel(address, None)
    facts = WorkerFacts(FakeEngine().info, limits_for(), "0", 7, kv_namespace=b"x")
    feed = KvFeed(pipe, facts, TOKEN, rest=lambda _: asyncio.sleep(0))
    feed.follow_kv(mirror)
    await until(lambda: numbers(mirror) == {1, 2, 3})
    assert liar.asked == asked
    await feed.stop()
    await pipe.close()
    await liar.server.stop(0)


async def test_a_large_cache_is_told_in_parts():
    """Each far below what the wire takes; the whole arrives once."""
    log = KvLog(7)
    log.tell(KvChange(stored=tuple(number.to_bytes(16) for number in range(100_000))))
    parts = [batch_message(batch) for batch in log.snapshot()]
    assert len(parts) > 5
    assert max(part.ByteSize() for part in parts) < 1 << 18
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert sum(len(change.stored) for part in parts for change in part.changes) == 1_600_000
