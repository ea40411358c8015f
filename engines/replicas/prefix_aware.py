"""Routes to the replica that has most of a prompt in its cache, unless it is too busy for that.

    cost = 128 x sequences there + new tokens in its line - prompt tokens that it has

All in tokens: what it has need not be computed, what stands in line is computed before, and each
running sequence takes a row of every step, some hundred times before it ends. Of a line as much is
new as was of all prompts so far: counted whole, a line of prompts that are all cached drives others
away (benchmarks/placement.py: 127,000 tokens were computed then, and 109,000 now).

So a prefix that is asked for again and again draws requests until its replica is so much busier
than another that computing it there is cheaper; from then on both have it. Where none has anything,
the least loaded is asked, and who has room always before who has none.

What is sent somewhere is expected to be in its cache soon: requests that come in one burst go
together, before any event can tell. An expectation that is not met is forgotten.
"""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from engines.api import GenerationRequest
from engines.kv_changes import KvChange, KvSource
from engines.replicas.policies import Preference, Rank
from engines.replicas.replica import Replica
from kvcache.directory import WORTH, PrefixDirectory
from kvcache.naming import BlockName, prompt_names, within

_A_CHOICE = 2
_SEQUENCE_TOKENS = 128
_EXPECTED = -1  # a tier of its own: removing what was stored in truth is left to events
_EXPECTED_S = 10.0
_MOST_EXPECTED = 1 << 18


class PrefixAware:
    """A `Routing` that follows the caches of its replicas, from the second one on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.directory = PrefixDirectory({**WORTH, _EXPECTED: 1.0})
        self._lives: dict[str, KvSource | None] = {}  # None: it tells nothing
        self._unfollowed: list[str] = []
        self._expected: OrderedDict[tuple[str, bytes], float] = OrderedDict()  # -> until when

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
        if any(tokens.values()):
            ranks = {each.name: _rank(each, tokens[each.name]) for each in replicas}
        else:
            ranks = {each.name: each.pressure() for each in replicas}
        return Preference(ranks, partial(self._expect, chains, blocks), tokens)

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
                own = within(space, salt=request.cache_salt, adapter=request.adapter)
                size = replica.engine.info.block_size
                try:
                    chains[space] = prompt_names(own, request.prompt, size)
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

    def _expect(
        self, chains: Mapping[bytes, list[BlockName]], blocks: Mapping[str, float], name: str
    ) -> None:
        """A replica took a request: it will have the blocks that it has not."""
        source = self._lives[name]
        if source is None:
            return
        new = chains[source.kv_namespace][int(blocks.get(name, 0)) :]
        until = self._clock() + _EXPECTED_S
        for block in new:
            self._expected[name, block] = until
            self._expected.move_to_end((name, block))
        self.directory.fold(name, stored=new, tier=_EXPECTED)

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


def _rank(replica: Replica, matched: float) -> Rank:
    sequences, waiting = replica.pressure()
    lines_up = sequences >= replica.engine.info.max_running
    load = replica.engine.load()
    asked, hit = load.prefix_query_tokens, load.prefix_hit_tokens
    new = waiting * (asked - hit) / asked if asked else waiting
    return (lines_up, _SEQUENCE_TOKENS * sequences + new - matched, sequences)
