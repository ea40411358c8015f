"""Links that come and go: what a fleet does with them, and which of them the registry asks for."""

import asyncio

import pytest

from engines.errors import EngineUnavailable
from gateway.config import ConfigError
from gateway.redis.errors import RedisDown
from gateway.redis.registry import Facts, Member, State
from gateway.workers.discovery import Discovery
from tests.support.live import MODEL
from tests.unit.gateway.workers.test_fleet import FakeLink, Hosted, fleet, until


class Registered:
    """What the registry tells; None: nothing, for Redis is down."""

    def __init__(self):
        self.now = {}

    def put(self, address, *, epoch=1, state=State.UP, model=MODEL):
        self.now[address] = Member(address, epoch, Facts(address, model, "0", state))

    async def members(self):
        if self.now is None:
            raise RedisDown
        return list(self.now.values())


class Finding:
    """A discovery over links that a test can lose."""

    def __init__(self, *, given=()):
        self.registered = Registered()
        self.links = {}
        self.broken = {}
        self.discovery = Discovery(self.registered, MODEL, self._connect, given=given)

    def _connect(self, address):
        if address.startswith("far"):
            raise ConfigError(f"{address} is far")
        link = self.links[address] = FakeLink(address, self.broken.pop(address, ()))
        return link

    async def look(self, made):
        self.discovery.follow(made, await self.registered.members())


def takes(made, name):
    return made._set._replicas[name].takes


def opened(scenario, *links, given=()):
    """Run a scenario over an open fleet, and a discovery of its own."""

    async def run():
        finding = Finding(given=given)
        async with fleet(*links) as (made, seen):
            opening = asyncio.create_task(made.open(seen.watch()))
            await until(lambda: made._watch is not None)
            await scenario(made, finding, seen)
            if links:
                await opening
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_a_fleet_without_links_opens_when_one_is_found():
    """And counts what it has."""

    async def scenario(made, finding, seen):
        assert (made.up, made.total) == (0, 0)
        finding.registered.put("a")
        await finding.look(made)
        await until(lambda: made.up == 1)
        assert made.total == 1
        assert seen.workers[-1] == (1, 1)
        assert seen.phases == ["opening a"]

    opened(scenario)


def test_what_is_no_longer_registered_and_not_there_is_forgotten():
    """It is not tried any more; registered again, it is a new link."""

    async def scenario(made, finding, seen):
        for name in "ab":
            finding.registered.put(name)
        await finding.look(made)
        await until(lambda: made.up == 2)
        first = finding.links["b"]
        del finding.registered.now["b"]
        first._outcomes = [EngineUnavailable("gone")] * 1000
        first.lose()
        await until(lambda: made.up == 1)
        await finding.look(made)
        assert made.total == 1
        await until(lambda: not made._parting)
        tried = first.opened
        finding.registered.put("b", epoch=2)
        await finding.look(made)
        await until(lambda: made.up == 2)
        assert finding.links["b"] is not first
        assert first.opened == tried
        assert seen.workers[-1] == (2, 2)

    opened(scenario)


def test_a_session_outweighs_the_registry():
    """One that lives is sent nothing new while others are registered, and is kept in any case."""

    async def scenario(made, finding, seen):
        for name in "ab":
            finding.registered.put(name)
        await finding.look(made)
        await until(lambda: made.up == 2)
        del finding.registered.now["b"]
        await finding.look(made)
        assert (made.up, takes(made, "a"), takes(made, "b")) == (2, True, False)
        finding.registered.put("b", epoch=2)
        await finding.look(made)
        assert takes(made, "b")
        finding.registered.now.clear()  # Redis was emptied
        await finding.look(made)
        assert takes(made, "a")
        assert takes(made, "b")
        assert [link.closed for link in finding.links.values()] == [0, 0]

    opened(scenario)


def test_who_drains_is_sent_nothing_more():
    """By what it has told; and may take that back."""

    async def scenario(made, finding, seen):
        for name in "ab":
            finding.registered.put(name)
        await finding.look(made)
        await until(lambda: made.up == 2)
        finding.registered.put("a", state=State.DRAINING)
        await finding.look(made)
        assert (takes(made, "a"), takes(made, "b")) == (False, True)
        finding.registered.put("a", epoch=2)
        await finding.look(made)
        assert takes(made, "a")

    opened(scenario)


def test_a_new_epoch_ends_the_rest_of_who_is_waited_for():
    """It has begun anew: nobody waits for half a minute to find out."""

    async def scenario(made, finding, seen):
        made._rest = lambda seconds: asyncio.Event().wait()
        finding.broken["a"] = [EngineUnavailable("starting")]
        finding.registered.put("a")
        await finding.look(made)
        await until(lambda: finding.links["a"].closed == 1)
        await finding.look(made)
        for _ in range(20):
            await asyncio.sleep(0)
        assert finding.links["a"].opened == 1
        finding.registered.put("a", epoch=2)
        await finding.look(made)
        await until(lambda: made.up == 1)

    opened(scenario)


def test_one_that_was_found_never_ends_the_process():
    """Whatever it turns out to compute; it is tried again."""

    async def scenario(made, finding, seen):
        finding.broken["a"] = [Hosted(vocab_size=7), Hosted(model="other")]
        finding.registered.put("a")
        await finding.look(made)
        await until(lambda: made.up == 1)
        assert finding.links["a"].opened == 3
        assert not seen.refused

    opened(scenario)


def test_those_of_other_models_named_ones_and_far_ones_are_left_alone():
    """Each for a reason of its own; the far one is told once."""

    async def scenario(made, finding, seen):
        finding.registered.put("other", model="another")
        finding.registered.put("named")
        finding.registered.put("far")
        for _ in range(3):
            await finding.look(made)
        assert not finding.links
        assert made.total == 1
        del finding.registered.now["named"]
        await finding.look(made)
        assert made.total == 1

    opened(scenario, FakeLink("named"), given=("named",))


def test_without_redis_the_last_list_stands():
    """And it is followed again afterwards."""

    async def scenario(made, finding, seen):
        finding.discovery._poll_s = 0.0
        finding.registered.put("a")
        running = asyncio.create_task(finding.discovery.run(made))
        await until(lambda: made.up == 1)
        finding.registered.now = None
        for _ in range(50):
            await asyncio.sleep(0)
        assert made.up == 1
        assert takes(made, "a")
        finding.registered.now = {}
        finding.registered.put("b")
        await until(lambda: made.has("b"))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    opened(scenario)


def test_a_fleet_that_is_not_open_finds_nothing():
    """A link would be kept by nobody."""

    async def scenario():
        async with fleet() as (made, _):
            with pytest.raises(RuntimeError):
                made.add(FakeLink("a"))

    asyncio.run(scenario())
