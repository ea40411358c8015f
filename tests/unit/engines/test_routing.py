"""Policies of routing: who is asked first, and what a policy never decides."""

from collections import Counter
from dataclasses import replace

import pytest

from engines.api import EngineInfo, EngineLoad, SharedPrefix
from engines.errors import InvalidRequest
from engines.kv_changes import KvChange
from engines.replicas import ReplicaSet
from engines.replicas.policies import LeastLoaded, RoundRobin, Sticky
from engines.replicas.prefix_aware import PrefixAware
from engines.sharing import place_of
from kvcache.naming import namespace, prompt_names, within
from tests.support.engines import ask, read
from tests.support.replicas import fleet, ledger_engine

pytestmark = pytest.mark.anyio

SIZE = 4
SPACE = namespace(b"m", b"4")
SYSTEM = [*range(40)]  # 10 blocks


class Idle:
    """An engine that is as busy as a test says, and tells of its cache what a test says."""

    def __init__(self, space=SPACE, room=8):
        self.kv_namespace = space
        self.listener = None
        self.asked = []
        self.busy = EngineLoad(0, 0, 0, 0, 64)
        self.info = EngineInfo("m", 1024, 500, SIZE, 64, room)

    def follow_kv(self, listener):
        assert self.listener is None
        self.listener = listener

    def has(self, tokens, salt=b"", **fields):
        """Its cache holds the full blocks of these tokens."""
        names = prompt_names(within(SPACE, salt=salt), tokens, SIZE)
        self.listener(KvChange(stored=tuple(names), **fields))

    def generate(self, request):
        if max(request.prompt) >= self.info.vocab_size:
            raise InvalidRequest("a token is outside the vocabulary", param="prompt")
        self.asked.append(request.id)
        return object()  # nobody reads it

    def load(self):
        return self.busy


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Set:
    """Replicas a, b, c... behind a policy, and where requests go."""

    def __init__(self, routing, count=2, room=8):
        self.clock = Clock()
        self.routing = routing() if routing is not PrefixAware else PrefixAware(self.clock)
        self.replicas = ReplicaSet(routing=self.routing)
        self.engines, self.number = {}, 0
        for name in "abcdefgh"[:count]:
            self.add(name, Idle(room=room))

    def add(self, name, engine=None):
        self.engines[name] = engine or Idle()
        self.replicas.add(name, self.engines[name], self.engines[name])

    def sent(self, prompt, *, salt=b"", **fields):
        """Which replica gets a request."""
        self.number += 1
        request = replace(ask(f"r{self.number}", [*prompt]), cache_salt=salt, **fields)
        self.replicas.generate(request)
        (name,) = (name for name, engine in self.engines.items() if request.id in engine.asked)
        return name

    def busy(self, **loads):
        """Sequences, and tokens in the line, of replicas."""
        for name, (running, tokens) in loads.items():
            self.engines[name].busy = EngineLoad(running, 0, tokens, 0, 64, steps=self.number)

    @property
    def counted(self):
        told = self.replicas.counters.placements
        return told.hits, told.misses, told.matched_tokens


@pytest.mark.parametrize("expected", [True, False])
def test_where_a_request_goes_tells_nothing_of_other_salts(expected):
    """What others have cached, or are about to have, moves nobody else's requests."""
    one, other = Set(PrefixAware, 3), Set(PrefixAware, 3)
    group = SharedPrefix(b"group", 8)
    for number in range(12):
        theirs = [number, *SYSTEM]
        if expected:
            one.sent(theirs, salt=b"a", shared=group)
            one.engines["c"].asked.clear()
        one.engines["abc"[number % 3]].has(theirs, salt=b"a")
    before = one.counted[0]
    for number in range(12):
        busy = {name: ((number * 7 + place) % 5, 0) for place, name in enumerate("abc")}
        asked = [number, *SYSTEM]
        for each in (one, other):
            each.number += 100
            each.busy(**busy)
        assert one.sent(asked, salt=b"b") == other.sent(asked, salt=b"b")
    assert one.counted[0] == before


def test_a_group_follows_what_it_shares():
    """To whoever has the system prompt, and what is behind it only for its own salt."""
    own = Set(PrefixAware, 3)
    shared = SharedPrefix(b"group", 24)
    root, turn = place_of(SPACE, replace(ask("x", SYSTEM), cache_salt=b"a", shared=shared), SIZE)
    stored = tuple(prompt_names(root, SYSTEM, SIZE, turn))
    own.engines["b"].listener(KvChange(stored=stored[:6]))
    own.engines["c"].listener(KvChange(stored=stored))
    assert own.sent(SYSTEM, salt=b"a", shared=shared) == "c"
    assert own.counted == (1, 0, 40)
    own.sent(SYSTEM, salt=b"b", shared=shared)
    assert own.counted == (2, 0, 40 + 24)
    own.sent(SYSTEM, salt=b"c")
    assert own.counted == (2, 1, 64)


# -- by turns, by load, by beginning


def test_round_robin_asks_who_was_asked_longest_ago():
    """Whoever is busy; one that comes has its turn next."""
    own = Set(RoundRobin, 3)
    own.busy(a=(7, 0))
    assert "".join(own.sent([1]) for _ in range(6)) == "abcabc"
    own.replicas.remove("b")
    own.add("d")
    assert "".join(own.sent([1]) for _ in range(6)) == "dacdac"
    own.replicas.remove("a")
    own.add("a")
    assert own.sent([1]) == "a", "it is another one by that name"


def test_the_least_loaded_does_not_care_for_prompts():
    """Nor does it follow any cache."""
    own = Set(LeastLoaded)
    own.busy(a=(2, 0), b=(1, 5))
    assert [own.sent(SYSTEM) for _ in range(3)] == ["b", "a", "b"]
    assert own.engines["a"].listener is None
    assert own.counted == (0, 0, 0)


def test_sticky_keeps_prompts_that_begin_alike_together():
    """By key and first block: what follows makes no difference, and neither does load."""
    own = Set(Sticky, 4, room=1000)
    homes = {first: own.sent([first] * SIZE) for first in range(60)}
    assert all(own.sent([first] * SIZE + [7, 8]) == home for first, home in homes.items())
    assert min(Counter(homes.values()).values()) >= 5, "spread over all"
    salted = {first: own.sent([first] * SIZE, salt=b"x") for first in range(60)}
    assert salted != homes
    assert own.sent([1, 2]) == own.sent([1, 2])


def test_sticky_moves_only_what_has_to_move():
    """Who leaves takes what was its own, and gets it back."""
    own = Set(Sticky, 4, room=1000)
    homes = {first: own.sent([first] * SIZE) for first in range(60)}
    own.replicas.remove("b")
    later = {first: own.sent([first] * SIZE) for first in range(60)}
    assert all(later[first] == home for first, home in homes.items() if home != "b")
    own.add("b", Idle(room=1000))
    assert {first: own.sent([first] * SIZE) for first in range(60)} == homes


def test_sticky_goes_elsewhere_where_it_would_stand_in_line():
    """As long as somebody has room."""
    own = Set(Sticky, 2)
    home = own.sent([1] * SIZE)
    other = "b" if home == "a" else "a"
    own.busy(**{home: (8, 0)})
    assert own.sent([1] * SIZE) == other
    own.busy(a=(9, 0), b=(9, 0))
    assert own.sent([1] * SIZE) == home


# -- by cache


def test_one_replica_is_not_followed():
    """There is nothing to choose; with the second both are."""
    own = Set(PrefixAware, 1)
    assert own.sent(SYSTEM) == "a"
    assert own.engines["a"].listener is None
    own.add("b")
    assert None not in {engine.listener for engine in own.engines.values()}
    assert own.counted == (0, 0, 0)


def test_a_request_goes_where_most_of_its_prompt_is():
    """Of the same key: names of other salts are other names."""
    own = Set(PrefixAware, 3)
    own.busy(b=(1, 0), c=(1, 0))
    own.engines["b"].has(SYSTEM[:36])
    own.engines["c"].has(SYSTEM[:32])
    own.busy(b=(0, 0), c=(0, 0))
    assert own.sent(SYSTEM) == "b"
    assert own.counted == (1, 0, 36)
    own.engines["c"].has(SYSTEM, salt=b"x")
    assert own.sent(SYSTEM, salt=b"x") == "c"
    own.engines["b"].listener(KvChange(cleared=True))
    assert own.sent([*SYSTEM[:32], 499], salt=b"y") == "a", "the least loaded"
    assert own.counted == (2, 1, 76)


def test_a_burst_goes_together_before_anybody_can_tell():
    """The first is expected to leave its blocks where it went."""
    own = Set(PrefixAware)
    system = [*range(400)]
    assert [own.sent([*system, number, *SYSTEM]) for number in range(3)] == ["a"] * 3
    assert own.counted == (2, 1, 800)


def test_what_is_expected_and_does_not_come_is_forgotten():
    """A request may be aborted; its blocks are then nowhere."""
    own = Set(PrefixAware)
    prompt = [*range(400)]
    assert own.sent(prompt) == "a"
    own.busy(a=(1, 0))
    own.clock.now = 9.9
    assert own.sent(prompt) == "a"
    own.clock.now = 20
    own.busy(a=(1, 0))
    assert own.sent(prompt) == "b"
    assert own.counted == (1, 2, 400)
    own.clock.now = 40
    own.engines["a"].has(prompt[:8])
    own.sent([1])
    assert len(own.routing.directory) == 2
    assert not own.routing._expected


def test_a_prefix_that_all_ask_for_spreads_before_its_home_drowns():
    """Each takes it over when the others have that much more to do: no hotspot, no stampede."""
    own = Set(PrefixAware, 4, room=64)
    prompt = [*range(499)]
    homes = [own.sent(prompt) for _ in range(64)]
    assert homes[:3] == ["a"] * 3
    counts = Counter(homes)
    assert set(counts) == set("abcd")
    assert max(counts.values()) - min(counts.values()) <= 499 / 128 + 1


def test_prefixes_spread_while_nobody_is_busy():
    """Where much was computed lately, more is pushed out: no replica is left without a prefix."""
    own = Set(PrefixAware, 3)
    homes = Counter()
    for number in range(30):
        homes[own.sent([number] * 40)] += 1
        own.busy(a=(0, 0), b=(0, 0), c=(0, 0))
        own.clock.now += 1
    assert set(homes.values()) == {10}


def test_what_was_computed_long_ago_crowds_nobody():
    """A cache forgets; so does what is known of it."""
    own = Set(PrefixAware)
    own.sent([1] * 200)
    own.busy(a=(0, 0))
    own.clock.now = 3600
    own.engines["b"].has([2] * 8)
    assert own.sent([3] * 12) == "a"
    own.busy(a=(0, 0))
    assert own.sent([4] * 12) == "b", "a has just computed something"


def test_a_crowded_cache_gives_way_to_one_with_room():
    """What a has of a prompt keeps it there while a has room, and not once a was computed over."""
    prompt = [*range(400)]
    own = Set(PrefixAware)
    own.engines["a"].has(prompt[:100])
    assert own.sent(prompt) == "a"
    own = Set(PrefixAware)
    for number in range(6):  # a's cache, of 256 tokens, more than once
        own.busy(a=(0, 0), b=(8, 0))
        own.sent([number] * 60)
    own.clock.now = 20  # nothing of it is expected any more
    own.engines["a"].has(prompt[:100])
    own.busy(a=(0, 0), b=(0, 0))
    assert own.sent(prompt) == "b"


def test_replicas_that_are_all_as_crowded_are_asked_by_load():
    """However much is computed everywhere, what is new weighs no more than it is."""
    own = Set(PrefixAware)
    for number in range(40):
        own.busy(a=(0, 0), b=(0, 0))
        own.sent([number] * 60)
    own.clock.now = 20
    own.engines["a"].has([*range(200)])
    own.busy(a=(1, 0), b=(0, 0))
    assert own.sent([*range(200)]) == "a"
    own.busy(a=(3, 0), b=(0, 0))
    assert own.sent([*range(200)]) == "b"


@pytest.mark.parametrize(
    ("loads", "home"),
    [
        ({"a": (3, 0)}, "a"),
        ({"a": (4, 0)}, "b"),
        ({"a": (1, 250)}, "a"),
        ({"a": (1, 300)}, "b"),
        ({"a": (8, 0), "b": (7, 0)}, "b"),
        ({"a": (9, 0), "b": (9, 0)}, "a"),
    ],
    ids=["few", "many", "short-line", "long-line", "full", "all-full"],
)
def test_what_is_cached_is_weighed_against_load(loads, home):
    """400 tokens are worth three sequences, or so many tokens of the line; never the last room."""
    own = Set(PrefixAware)
    own.engines["a"].has([*range(400)])
    own.busy(**loads)
    assert own.sent([*range(400)]) == home


def test_of_a_line_counts_what_is_new():
    """Where nine tenths of all prompts came from the cache, so will they of what waits."""
    own = Set(PrefixAware)
    own.engines["a"].has([*range(400)])
    own.engines["a"].busy = EngineLoad(1, 0, 2000, 0, 64, prefix_query_tokens=100)
    assert own.sent([*range(400)]) == "b"
    own = Set(PrefixAware)
    own.engines["a"].has([*range(400)])
    load = EngineLoad(1, 0, 2000, 0, 64, prefix_query_tokens=100, prefix_hit_tokens=90)
    own.engines["a"].busy = load
    assert own.sent([*range(400)]) == "a"


def test_who_is_gone_has_nothing_and_is_not_heard():
    """Another one under its name begins with nothing."""
    own = Set(PrefixAware)
    own.engines["a"].has([*range(400)])
    gone = own.engines.pop("a")
    own.replicas.remove("a")
    gone.has([*range(400)])
    own.busy(b=(1, 0))
    own.add("a")
    assert own.sent([*range(400)]) == "a"
    assert own.counted == (0, 1, 0)
    own.engines["a"].has([*range(400)])
    own.replicas.retire("a")
    assert own.sent([*range(400)]) == "b", "it may not be asked"


def test_replicas_that_tell_nothing_are_asked_by_their_load():
    """Among those that do, and where none does."""
    own = Set(PrefixAware, 1)
    own.add("b", Idle(space=b""))
    own.engines["a"].has(SYSTEM)
    assert own.engines["b"].listener is None
    assert own.sent(SYSTEM) == "a"
    own.busy(a=(5, 0))
    assert own.sent(SYSTEM) == "b"
    silent = Set(PrefixAware, 0)
    silent.add("a", Idle(space=b""))
    silent.add("b", Idle(space=b""))
    assert [silent.sent(SYSTEM) for _ in range(4)] == ["a", "b", "a", "b"]
    assert silent.counted == (0, 0, 0)


def test_a_request_that_takes_nothing_from_a_cache_is_sent_by_load():
    """A vector, or log-probabilities of the prompt, need every row computed."""
    own = Set(PrefixAware)
    own.engines["a"].has(SYSTEM)
    own.busy(a=(1, 0))
    assert own.sent(SYSTEM, pooled=True) == "b"
    assert own.counted == (0, 0, 0)


@pytest.mark.parametrize("token", [2**31, 2**40])
def test_what_is_no_token_is_for_an_engine_to_refuse(token):
    """A policy prefers, and refuses nothing."""
    own = Set(PrefixAware)
    with pytest.raises(InvalidRequest):
        own.replicas.generate(ask("a", [token] * 8))


def test_expectations_are_bounded(monkeypatch):
    """The oldest are given up."""
    monkeypatch.setattr("engines.replicas.prefix_aware._MOST_EXPECTED", 10)
    own = Set(PrefixAware)
    for number in range(20):
        own.sent([number] * 5 * SIZE)
    own.sent([1])
    assert len(own.routing._expected) <= 10
    assert len(own.routing.directory) <= 10


# -- over engines


async def test_engines_are_asked_for_what_they_have():
    """Over two real ones: the second time the prompt comes from the cache, wherever it was."""
    routing = PrefixAware()
    async with fleet(lambda *_: ledger_engine(), "ab", routing=routing) as own:
        for number in range(6):
            prompt = [number, *range(41)]
            before = (await read(own.replicas.generate(ask(f"x{number}", prompt))))[0]
            again = (await read(own.replicas.generate(ask(f"y{number}", prompt))))[0]
            assert (before.cached, again.cached) == (0, 40)
            assert again.tokens == before.tokens
        placed = own.replicas.counters.placements
        assert (placed.hits, placed.misses, placed.matched_tokens) == (6, 6, 6 * 40)


def test_a_lie_is_still_a_lie_where_the_cache_is():
    """Whom a stream distrusts it does not go back to, whatever is cached there."""
    own = Set(PrefixAware)
    own.engines["a"].has(SYSTEM)
    stream = own.replicas.generate(ask("s", SYSTEM))
    assert stream.replica.name == "a"
    stream.distrusted.add(stream.replica)
    own.replicas.leave(stream, done=False)
    own.replicas.place(stream, stream.request, in_turn=True)
    assert stream.replica.name == "b"
