"""Keeps every replica of a model reachable: connects, counts, and comes back after a loss.

Link     one place where a replica is: a process of ours (supervised.py) or an address
keeper   a task per link: open, add to the set, wait for the loss, remove, wait, open again
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

from engines.errors import EngineError, ModelRejected
from engines.kv_changes import KvSource
from engines.remote import RemoteEngine
from engines.replicas import ReplicaSet
from engines.replicas.policies import LeastLoaded, Placements, RoundRobin, Routing, Sticky
from engines.replicas.prefix_aware import PrefixAware
from gateway.daemon_thread import in_daemon_thread
from gateway.kv_budget import KvBudget, KvNeed
from gateway.model_directory import TextSide, read_text_side
from gateway.opened import Computes, Opened, Report, model_path, open_over
from gateway.settings import Settings
from gateway.source import Watch
from gateway.workers.backoff import BackOff
from gateway.workers.text_agreement import check_agreement

_log = logging.getLogger("penstock.workers")
_ROUTINGS: Mapping[str, Callable[[], Routing]] = MappingProxyType(
    {
        "prefix": PrefixAware,
        "least-loaded": LeastLoaded,
        "round-robin": RoundRobin,
        "sticky": Sticky,
    }
)


@dataclass(frozen=True, slots=True)
class Replica:
    """A started engine in a worker, and the context of its model before any cut."""

    engine: RemoteEngine
    own_context: int
    kv: KvSource | None = None  # who tells of its cache


class Link(Protocol):
    """One place where a replica is. Opened again after each loss; closed in between."""

    name: str
    must_start: bool  # whether a first failure means that it can never be

    async def open(self, report: Report) -> Replica:
        """Connect. Raises EngineError, OSError, ValueError."""

    async def lost(self) -> bool:
        """Wait until it is gone; whether it went as it had been asked to."""

    async def close(self) -> None:
        """Free what is left of it. Idempotent."""


class Fleet:
    """The replicas of one model, as the source of one engine.

    Links may come and go while it is open: `find` is run then, and adds and drops them. One that
    was found never ends the process, whatever it turns out to be.
    """

    def __init__(
        self,
        settings: Settings,
        links: Sequence[Link],
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
        find: "Callable[[Fleet], Coroutine[Any, Any, None]] | None" = None,
    ) -> None:
        self._settings = settings
        self._links = list(links)
        self._find = find
        self._chance = chance
        self._clock = clock
        self._rest = rest
        self._set = ReplicaSet(
            migrations=settings.migrations,
            wait_s=settings.migration_wait_s,
            routing=_ROUTINGS[settings.routing](),
        )
        self._first: asyncio.Future[Replica] | None = None
        self._reading: asyncio.Task[TextSide] | None = None
        self._watch: Watch | None = None
        self._finding: asyncio.Task[None] | None = None
        self._pauses: asyncio.Task[None] | None = None
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._parting: set[asyncio.Task[None]] = set()
        self._again: dict[str, asyncio.Event] = {}
        self._told = False  # a phase: those of one worker are enough for a screen
        self.restarts = 0

    @property
    def up(self) -> int:
        return len(self._set.engines)

    @property
    def total(self) -> int:
        return len(self._links)

    @property
    def outlive(self) -> bool:
        return not any(link.must_start for link in self._links)

    @property
    def migrations(self) -> int:
        return self._set.counters.migrations

    @property
    def placements(self) -> Placements:
        return self._set.counters.placements

    async def open(self, watch: Watch) -> Opened:
        """The set, once its first replica is up. Raises why a link can never be."""
        first = self._first = asyncio.get_running_loop().create_future()
        reading = self._reading = asyncio.create_task(in_daemon_thread(self._read_text))
        self._watch = watch
        self._pauses = asyncio.create_task(self._set.pauses.watch())
        for link in self._links:
            self._begin(link, watch, reading, found=False)
        if self._find is not None:
            self._finding = asyncio.create_task(self._find(self))
        await asyncio.wait({reading, first}, return_when=asyncio.FIRST_EXCEPTION)
        if first.done():  # its reason is the better one where both have failed
            first.result()
        text, replica = await reading, await first
        await self._set.start()
        facts = replica.engine.facts
        computes = Computes(self._set, _budget(replica), facts.ends, grammars=facts.grammars)
        return replace(open_over(self._settings, text, computes), workers=self)

    async def close(self) -> None:
        own = (self._reading, self._finding, self._pauses, *self._keepers.values(), *self._parting)
        tasks = [task for task in own if task is not None]
        self._keepers.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def add(self, link: Link) -> None:
        """Keep one more, which was found. While open."""
        if self._watch is None or self._reading is None:
            raise RuntimeError("a fleet finds links while it is open")
        self._links.append(link)
        self._begin(link, self._watch, self._reading, found=True)
        self._watch.workers(self.up, self.total)

    def drop(self, name: str) -> None:
        """Keep it no longer."""
        self._links = [link for link in self._links if link.name != name]
        task = self._keepers.pop(name)
        self._parting.add(task)
        task.add_done_callback(self._parting.discard)
        task.cancel()
        if self._watch is not None:
            self._watch.workers(self.up, self.total)

    def has(self, name: str) -> bool:
        """Whether the replica of a link is up."""
        return name in self._set.engines

    def retire(self, name: str, *, retired: bool) -> None:
        """Send it nothing new, or again; nothing where it is not up."""
        if self.has(name):
            self._set.retire(name, retired=retired)

    def again(self, name: str) -> None:
        """It may be there again: if it is waited for, try now."""
        self._again[name].set()

    def _begin(
        self, link: Link, watch: Watch, reading: "asyncio.Task[TextSide]", *, found: bool
    ) -> None:
        self._again[link.name] = asyncio.Event()
        keeping = self._keep(link, reading, watch, found=found)
        self._keepers[link.name] = asyncio.create_task(keeping)

    def _read_text(self) -> TextSide:
        return read_text_side(model_path(self._settings))

    async def _keep(
        self, link: Link, reading: "asyncio.Task[TextSide]", watch: Watch, *, found: bool
    ) -> None:
        """One life of a replica after another, with a rest between them."""
        backoff = BackOff(self._chance)
        report, self._told = (_silent if self._told else watch.phase), True
        known = False
        while True:
            began, asked = self._clock(), False
            self._again[link.name].clear()
            try:
                replica = await link.open(report)
                check_agreement(link.name, replica.engine.facts, await reading, self._settings)
                self._set.add(link.name, replica.engine, replica.kv)
                known, began = True, self._clock()
                self._welcome(replica, watch)
                asked = await link.lost()
                _log.log(logging.INFO if asked else logging.WARNING, "%s is gone", link.name)
            except (ModelRejected, EngineError, OSError, ValueError) as error:
                if not (known or found) and (link.must_start or not _may_pass(error)):
                    self._refuse(error, watch)
                    return
                _log.warning("%s cannot be reached: %s", link.name, error)
                began = self._clock()
            finally:
                await self._part(link, watch)
            await self._pause(link, 0 if asked else backoff.after(self._clock() - began))
            self.restarts += known

    async def _pause(self, link: Link, rest_s: float) -> None:
        """Rest, unless it is heard to be there again."""
        again = self._again[link.name]
        ends = {asyncio.ensure_future(self._rest(rest_s)), asyncio.ensure_future(again.wait())}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    def _welcome(self, replica: Replica, watch: Watch) -> None:
        watch.workers(self.up, self.total)
        if self._first is not None and not self._first.done():
            self._first.set_result(replica)

    def _refuse(self, error: Exception, watch: Watch) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_exception(error)
        else:
            watch.refused(error)

    async def _part(self, link: Link, watch: Watch) -> None:
        if link.name in self._set.engines:
            self._set.remove(link.name)
            watch.workers(self.up, self.total)
        await link.close()


def _silent(_: str) -> None:
    """The phases of one worker are enough for a screen."""


def _may_pass(error: Exception) -> bool:
    """Whether what is wrong may be right later, without anybody's doing."""
    return isinstance(error, OSError) or (isinstance(error, EngineError) and error.retryable)


def _budget(replica: Replica) -> KvBudget:
    info, kv_bytes = replica.engine.info, replica.engine.facts.kv_bytes
    token_bytes = kv_bytes // (info.num_blocks * info.block_size)
    need = KvNeed(token_bytes, info.block_size, info.max_running, replica.own_context)
    return KvBudget(info.num_blocks, info.max_context, token_bytes * info.block_size, need)
