"""Routes to the replica that has most of a prompt in its cache, unless it is too busy for that.

    cost = 128 x sequences there + new tokens in its line + crowding x prompt tokens that it has not

All in tokens: what it has need not be computed, what stands in line is computed before, and each
running sequence takes a row of every step, some hundred times before it ends. Of a line as much is
new as was of all prompts so far: counted whole, a line of prompts that are all cached drives others
away (benchmarks/placement.py: 127,000 tokens were computed then, and 109,000 now).

What is computed pushes out what lies longest in a cache. Crowding is between 1 and 2: by how many
of its caches a replica has computed more lately than the one of which that is least, over the most
of any, or over one where none has computed that much. Where caches are large, or all are as
crowded, it is 1. Without it the first replica gets all prefixes and the last none as long as nobody
is busy, and a crowded cache computes the same again and again beside one with room
(benchmarks/multi_turn.py).

So a prefix that is asked for again and again draws requests until its replica is so much busier
than another that computing it there is cheaper; from then on both have it. Who has room is always
asked before who has none.

What is sent somewhere is expected to be in its cache soon: requests that come in one burst go
together, before any event can tell. An expectation that is not met is forgotten.
"""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from engines.api import GenerationRequest
from engines.kv_changes import KvChange, KvSource
from engines.replicas.lately import Lately
from engines.replicas.policies import Preference, Rank
from engines.replicas.replica import Replica
from engines.sharing import place_of
from kvcache.directory import WORTH, PrefixDirectory
from kvcache.naming import BlockName, prompt_names

_A_CHOICE = 2
_SEQUENCE_TOKENS = 128
_EXPECTED = -1  # a tier of its own: removing what was stored in truth is left to events
_EXPECTED_S = 10.0
_MOST_EXPECTED = 1 << 18
_HALF_LIFE_S = 60.0  # of what was computed: conversations pause that long


class PrefixAware:
    """A `Routing` that follows the caches of its replicas, from the second one on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.directory = PrefixDirectory({**WORTH, _EXPECTED: 1.0})
        self._lives: dict[str, KvSource | None] = {}  # None: it tells nothing
        self._unfollowed: list[str] = []
        self._expected: OrderedDict[tuple[str, bytes], float] = OrderedDict()  # -> until when
        self._computed = Lately(_HALF_LIFE_S)  # tokens

    def came(self, name: str, kv: KvSource | None) -> None:
        self._lives[name] = kv if kv is not None and kv.kv_namespace else None
        self._unfollowed.append(name)
        if len(self._lives) > 1:
            waiting, self._unfollowed = self._unfollowed, []
            for each in waiting:
                source = self._lives.get(each)
                if source is not None:
                    source.follow_kv(partial(self._hear, each, source))

    def went(self, name: str) -> None:
        del self._lives[name]
        self._unfollowed = [each for each in self._unfollowed if each != name]
        self.directory.clear(name)
        self._computed.forget(name)

    def look(self, request: GenerationRequest, replicas: Sequence[Replica]) -> Preference:
        self._expire()
        chains = self._chains(request, replicas)
        if not chains:
            return Preference({each.name: each.pressure() for each in replicas}, lambda _: None)
        blocks: dict[str, float] = {}
        for names in chains.values():
            blocks |= self.directory.matches(names)
        size = replicas[0].engine.info.block_size
        tokens = {each.name: blocks.get(each.name, 0.0) * size for each in replicas}
        new = {name: len(request.prompt) - matched for name, matched in tokens.items()}
        crowding = self._crowding(replicas)
        ranks = {each.name: _rank(each, crowding[each.name] * new[each.name]) for each in replicas}
        return Preference(ranks, partial(self._took, chains, blocks, new), tokens)

    def _crowding(self, replicas: Sequence[Replica]) -> Mapping[str, float]:
        """What a new token costs each: those that it pushes out may have to be computed again."""
        computed = self._computed.sums(self._clock())
        over = {each.name: computed.get(each.name, 0.0) / _cache_tokens(each) for each in replicas}
        least, most = min(over.values()), max(1.0, *over.values())
        return {name: 1.0 + (times - least) / most for name, times in over.items()}

    def _chains(
        self, request: GenerationRequest, replicas: Sequence[Replica]
    ) -> Mapping[bytes, list[BlockName]]:
        """The names of the prompt's blocks in each namespace; none where they cannot matter."""
        if len(replicas) < _A_CHOICE or request.needs_every_row:
            return {}
        chains: dict[bytes, list[BlockName]] = {}
        for replica in replicas:
            source = self._lives.get(replica.name)
            if source is not None and source.kv_namespace not in chains:
                space = source.kv_namespace
                size = replica.engine.info.block_size
                root, turn = place_of(space, request, size)
                try:
                    chains[space] = prompt_names(root, request.prompt, size, turn)
                except ValueError:
                    return {}  # whichever engine is asked will refuse it
        return chains

    def _hear(self, name: str, life: KvSource, change: KvChange) -> None:
        if self._lives.get(name) is not life:
            return  # a last word
        if change.cleared:
            self.directory.clear(name)
        self.directory.fold(
            name, removed=change.removed, stored=change.stored, tier=max(change.tier, 0)
        )

    def _took(
        self,
        chains: Mapping[bytes, list[BlockName]],
        blocks: Mapping[str, float],
        new: Mapping[str, float],
        name: str,
    ) -> None:
        """A replica took a request: it computes what is new, and will have the blocks of it."""
        self._computed.add(name, new[name], self._clock())
        source = self._lives[name]
        if source is None:
            return
        coming = chains[source.kv_namespace][int(blocks.get(name, 0)) :]
        until = self._clock() + _EXPECTED_S
        for block in coming:
            self._expected[name, block] = until
            self._expected.move_to_end((name, block))
        self.directory.fold(name, stored=coming, tier=_EXPECTED)

    def _expire(self) -> None:
        now, over = self._clock(), defaultdict[str, list[bytes]](list)
        while self._expected:
            (name, block), until = next(iter(self._expected.items()))
            if until > now and len(self._expected) <= _MOST_EXPECTED:
                break
            del self._expected[name, block]
            over[name].append(block)
        for name, blocks in over.items():
            if name in self._lives:
                self.directory.fold(name, removed=blocks, tier=_EXPECTED)


def _cache_tokens(replica: Replica) -> int:
    info = replica.engine.info
    return info.num_blocks * info.block_size or 1


def _rank(replica: Replica, work: float) -> Rank:
    sequences, waiting = replica.pressure()
    lines_up = sequences >= replica.engine.info.max_running
    load = replica.engine.load()
    asked, hit = load.prefix_query_tokens, load.prefix_hit_tokens
    new = waiting * (asked - hit) / asked if asked else waiting
    return (lines_up, _SEQUENCE_TOKENS * sequences + new + work, sequences)
