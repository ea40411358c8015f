"""Which replica a request should go to, where more than one may be asked: by load, turn or prompt.

A policy only prefers: who may be asked at all, and that suspects are kept apart, is the set's.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from engines.api import GenerationRequest
from engines.kv_changes import KvSource
from engines.replicas.replica import Replica
from engines.sharing import place_of
from kvcache.naming import prompt_names

Rank = tuple[float, ...]  # the lowest is asked first


@dataclass(frozen=True, slots=True)
class Preference:
    """What a policy thinks of replicas, for one request."""

    ranks: Mapping[str, Rank]
    took: Callable[[str], None]  # to be told which one took it
    matched: Mapping[str, float] | None = None  # prompt tokens each has; None: nobody has looked


@dataclass(slots=True)
class Placements:
    """Totals of requests by where they went, and of those placed by what is known of caches."""

    requests: Counter[str] = field(default_factory=Counter)  # by replica, of those that are there
    hits: int = 0  # on a replica that had, or was about to have, some of the prompt
    misses: int = 0
    matched_tokens: float = 0  # of hits

    def count(self, preference: Preference, name: str) -> None:
        """A replica took a request."""
        self.requests[name] += 1
        if preference.matched is None:
            return
        matched = preference.matched[name]
        self.hits += matched > 0
        self.misses += matched == 0
        self.matched_tokens += matched

    def forget(self, name: str) -> None:
        """A replica is gone: names of those that were found would pile up."""
        del self.requests[name]


class Routing(Protocol):
    """A policy. It hears of replicas before it is asked about them."""

    def came(self, name: str, kv: KvSource | None) -> None:
        """A replica came; `kv` tells what is in its cache."""

    def went(self, name: str) -> None:
        """It is gone. Another one may come under its name."""

    def look(self, request: GenerationRequest, replicas: Sequence[Replica]) -> Preference:
        """How these replicas are for a request."""


class LeastLoaded:
    """The one with the fewest sequences, then with the fewest tokens in its line."""

    def came(self, name: str, kv: KvSource | None) -> None: ...

    def went(self, name: str) -> None: ...

    def look(self, request: GenerationRequest, replicas: Sequence[Replica]) -> Preference:
        del request
        return Preference({each.name: each.pressure() for each in replicas}, _ignore)


class RoundRobin:
    """The one whose last turn was longest ago, whatever it has to do."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}
        self._turn = 0

    def came(self, name: str, kv: KvSource | None) -> None: ...

    def went(self, name: str) -> None:
        self._turns.pop(name, None)

    def look(self, request: GenerationRequest, replicas: Sequence[Replica]) -> Preference:
        del request
        return Preference({each.name: (self._turns.get(each.name, 0),) for each in replicas},
                          self._took)  # fmt: skip

    def _took(self, name: str) -> None:
        self._turn += 1
        self._turns[name] = self._turn


class Sticky:
    """The same one for prompts of a caller that begin alike, as long as it has no line.

    They begin alike where the first block does. Of each pair of such a beginning and a replica a
    weight is drawn by a hash, and the heaviest is asked first: who comes or goes moves only what is
    its own. Nothing is told or remembered, so that it serves engines that tell no KV events.
    """

    def came(self, name: str, kv: KvSource | None) -> None: ...

    def went(self, name: str) -> None: ...

    def look(self, request: GenerationRequest, replicas: Sequence[Replica]) -> Preference:
        beginning = _beginning(request, replicas[0].engine.info.block_size) if replicas else b""
        ranks = {each.name: (_has_line(each), -_weight(beginning, each.name)) for each in replicas}
        return Preference(ranks, _ignore)


def _beginning(request: GenerationRequest, block_size: int) -> bytes:
    head = request.prompt[:block_size]
    space, _ = place_of(b"", request, block_size)
    return prompt_names(space, head, len(head) or 1)[-1] if head else b""


def _weight(beginning: bytes, name: str) -> int:
    return int.from_bytes(blake2b(beginning + name.encode(), digest_size=6).digest(), "little")


def _has_line(replica: Replica) -> bool:
    """Whether what is sent to it would have to wait for others to end."""
    return replica.pressure()[0] >= replica.engine.info.max_running


def _ignore(_: str) -> None:
    """Who took it makes no difference."""
