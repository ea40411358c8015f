"""Finds workers in the registry: links come and go with leases, and drains are heard of at once.

A hint, never a verdict: a worker whose session lives is not given up because Redis has lost it.

    there, up         a link            gone, no session                    its link goes too
    there, draining   no new work       gone, a session, others are there   no new work
                                        gone, a session, nobody is there    as before: it is Redis
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from gateway.config import ConfigError
from gateway.redis.errors import RedisUnusable
from gateway.redis.registry import Member, State
from gateway.workers.fleet import Fleet, Link

POLL_S = 0.5
_log = logging.getLogger("penstock.workers")


class Members(Protocol):
    """Who is registered."""

    async def members(self) -> Sequence[Member]:
        """All whose leases go on. Raises RedisUnusable."""


class Discovery:
    """The workers of one model. `connect` makes a link to an address, or raises ConfigError."""

    def __init__(
        self,
        registry: Members,
        model: str,
        connect: Callable[[str], Link],
        *,
        given: Collection[str] = (),
        poll_s: float = POLL_S,
    ) -> None:
        self._registry = registry
        self._model = model
        self._connect = connect
        self._given = frozenset(given)  # addresses that are fronted whatever the registry says
        self._poll_s = poll_s
        self._known: dict[str, int] = {}  # address -> the epoch of its lease
        self._refused: set[str] = set()

    async def run(self, fleet: Fleet) -> None:
        """Follow the registry for ever. Without Redis, what was last known stands."""
        while True:
            try:
                members = await self._registry.members()
            except RedisUnusable as error:
                _log.debug("no news of workers: %s", type(error).__name__)
            else:
                self.follow(fleet, members)
            await asyncio.sleep(self._poll_s)

    def follow(self, fleet: Fleet, members: Sequence[Member]) -> None:
        """Make the links of a fleet those of the members."""
        there = {one.facts.address: one for one in members if one.facts.model == self._model}
        for address, member in there.items():
            if address not in self._given:
                self._see(fleet, address, member)
        for address in [each for each in self._known if each not in there]:
            self._miss(fleet, address, alone=not there)

    def _see(self, fleet: Fleet, address: str, member: Member) -> None:
        before = self._known.get(address)
        if before is None and not self._add(fleet, address):
            return
        if before is not None and before != member.epoch:
            fleet.again(address)  # a new life, or one that was not heard of for a while
        self._known[address] = member.epoch
        fleet.retire(address, retired=member.facts.state is State.DRAINING)

    def _add(self, fleet: Fleet, address: str) -> bool:
        try:
            link = self._connect(address)
        except ConfigError as error:
            if address not in self._refused:
                _log.warning("a worker is registered that cannot be fronted: %s", error)
            self._refused.add(address)
            return False
        fleet.add(link)
        _log.info("%s is registered", address)
        return True

    def _miss(self, fleet: Fleet, address: str, *, alone: bool) -> None:
        if not fleet.has(address):
            del self._known[address]
            fleet.drop(address)
            _log.info("%s is no longer registered", address)
        elif not alone:
            fleet.retire(address, retired=True)
