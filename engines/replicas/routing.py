"""The `Engine` port over several engines: a request goes to one of them, and may move on.

Lives on the event loop and knows nothing of processes: who restarts engines adds and removes them
here. An engine that says EngineDied is taken for dead, and is sent nothing more.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from engines.api import (
    Engine,
    EngineInfo,
    EngineLoad,
    Found,
    GenerationRequest,
    Keeper,
    RequestId,
    TokenStream,
)
from engines.errors import (
    EngineDied,
    EngineUnavailable,
    InvalidRequest,
    RequestQuarantined,
    RequestUnknown,
)
from engines.kv_changes import KvSource
from engines.replicas.changes import Changes
from engines.replicas.pauses import Pauses
from engines.replicas.policies import LeastLoaded, Preference, Routing
from engines.replicas.quarantine import Quarantine
from engines.replicas.replica import Replica
from engines.replicas.stream import Counters, MigratingStream, Patience
from engines.replicas.totals import added


class ReplicaSet:
    """One engine made of several; see stream.py for what becomes of a stream whose replica dies.

    `routing` says who is asked first, of those that may be asked; who better is not comes last all
    the same. A stream outlives at most `migrations` replicas that die or lie to it, besides those
    that drain, and looks for the next for at most `wait_s` each.
    """

    def __init__(
        self,
        *,
        migrations: int = 3,
        wait_s: float = 30.0,
        routing: Routing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.changes = Changes()
        self.counters = Counters()
        self.quarantine = Quarantine(clock)
        self.pauses = Pauses(clock)
        self._routing = routing or LeastLoaded()
        self.patience = Patience(migrations, wait_s, clock)
        self._replicas: dict[str, Replica] = {}
        self._streams: dict[RequestId, MigratingStream] = {}
        self._info: EngineInfo | None = None
        self._gone = EngineLoad(0, 0, 0, 0, 0)  # totals of those that were removed
        self._stopping = self.stopped = False

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines by name; dead ones too, until they are removed."""
        return {name: replica.engine for name, replica in self._replicas.items()}

    def add(self, name: str, engine: Engine, kv: KvSource | None = None) -> None:
        """Take a started engine in, and who tells of its cache.

        Raises ValueError where it serves something else.
        """
        if name in self._replicas:
            raise ValueError(f"there is a replica {name!r} already")
        ours = self._info or engine.info
        if ours != replace(engine.info, num_blocks=ours.num_blocks):  # these it found free
            raise ValueError(f"replica {name!r} is {engine.info}, the others are {ours}")
        self._info = ours
        self._replicas[name] = Replica(name, engine)
        self._routing.came(name, kv)
        self.changes.tell()

    def retire(self, name: str, *, retired: bool = True) -> None:
        """Send a replica nothing new, what runs there goes on; or take that back."""
        self._replicas[name].retired = retired
        self.changes.tell()

    def remove(self, name: str) -> None:
        """Forget a replica; what runs there moves when it fails, which is up to its engine."""
        replica = self._replicas.pop(name)
        replica.retired = True
        self._routing.went(name)
        self.counters.placements.forget(name)
        self._gone = added(self._gone, replica.engine.load(), gone=True)

    @property
    def info(self) -> EngineInfo:
        """What every replica serves. Raises EngineUnavailable before the first has come."""
        if self._info is None:
            raise EngineUnavailable("no replica has been ready yet")
        return self._info

    async def start(self) -> None:
        """Nothing to do: replicas come started."""

    def generate(self, request: GenerationRequest) -> MigratingStream:
        if self._stopping:
            raise EngineUnavailable("the engine is stopping")
        if request.id in self._streams:
            raise InvalidRequest("a request with this id is already open", param="id")
        if self.quarantine.holds(request):
            self.counters.quarantined += 1
            raise RequestQuarantined("the engine failed under a request like this one")
        stream = MigratingStream(request, self, self.patience, self.info.vocab_size)
        if not stream.open():
            raise EngineUnavailable("no replica is ready")
        self._streams[request.id] = stream
        return stream

    def attach(self, request: GenerationRequest, found: Found) -> MigratingStream:
        """Go on with a kept request (finding.py), from its first token; it may move then as any.

        Raises RequestUnknown where its replica has gone; the stream, also RequestTaken.
        """
        if self._stopping:
            raise EngineUnavailable("the engine is stopping")
        replica = self._replicas.get(found.replica)
        if replica is None or not isinstance(replica.engine, Keeper):
            raise RequestUnknown("the worker that has kept that request has gone")
        kept = replace(found.kept, attempt=found.kept.attempt + 1)
        request = replace(request, kept=kept)
        stream = MigratingStream(request, self, self.patience, self.info.vocab_size)
        stream.attach(replica)
        self._streams[request.id] = stream
        return stream

    def load(self) -> EngineLoad:
        """The sum over all replicas. The set never dies: a dead replica may be replaced."""
        total = self._gone
        for replica in self._replicas.values():
            load = replica.engine.load()
            total = added(total, load, gone=not load.alive)
        return total

    async def stop(self, grace_s: float) -> None:
        self._stopping = True
        clock = self.patience.clock
        deadline = clock() + grace_s
        while self._streams and (left := deadline - clock()) > 0:
            await self.changes.wait(left)
        self.stopped = True
        self.changes.tell()
        stops = [engine.stop(0) for engine in self.engines.values()]
        for outcome in await asyncio.gather(*stops, return_exceptions=True):
            if outcome is not None:
                raise outcome

    # -- for its streams

    def place(
        self, stream: MigratingStream, rest: GenerationRequest, *, in_turn: bool
    ) -> TokenStream | None:
        if self.stopped:
            raise EngineUnavailable("the engine is stopping")
        takers = [replica for replica in self._replicas.values() if replica.takes]
        if not takers:
            return None
        preference = self._routing.look(rest, takers)
        for replica in _by_preference(stream, takers, preference):
            if in_turn and not replica.has_turn(stream.strikes):
                continue
            try:
                inner = replica.engine.generate(rest)
            except (EngineUnavailable, EngineDied):
                continue  # it is stopping, or its streams will tell how it ended
            replica.send(len(rest.choices))
            replica.guests.add(stream)
            stream.replica, stream.told = replica, False
            preference.took(replica.name)
            self.counters.placements.count(preference, replica.name)
            return inner
        return None

    def leave(self, stream: MigratingStream, *, done: bool) -> None:
        if stream.replica is not None:
            stream.replica.guests.discard(stream)
            stream.replica = None
        if done and self._streams.get(stream.request.id) is stream:
            del self._streams[stream.request.id]
        self.changes.tell()


def _by_preference(
    stream: MigratingStream, takers: list[Replica], preference: Preference
) -> list[Replica]:
    def order(replica: Replica) -> tuple[bool, bool, int, tuple[float, ...]]:
        company = replica.suspects if stream.strikes else 0
        rank = preference.ranks[replica.name]
        return replica in stream.distrusted, replica.tries, company, rank

    return sorted(takers, key=order)
