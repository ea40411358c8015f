"""One choice of one request, from its arrival to its end."""

from dataclasses import dataclass, field

import numpy as np

from engines.api import GenerationRequest
from engines.step import Int32Array, LaneStart
from kvcache.naming import BlockName, Turn
from kvcache.prefix import Parent

NO_LANE = -1


@dataclass(slots=True, eq=False)
class Sequence:
    """Owned by the scheduler. While it has a lane, its tokens and table live in `Lanes`.

    The choices of an n > 1 request start as one sequence with *followers*: the leader computes the
    prompt, then all part from it. Until then the followers have lanes but no tokens of their own.
    """

    request: GenerationRequest
    choice: int
    arrival: int  # order of arrival, over the engine's life
    step: int  # the scheduler's step count at arrival, for ageing
    log: Int32Array  # tokens known so far; stale while a lane holds the live copy
    namespace: bytes  # where its prefixes are shared, up to the turn if there is one
    account: int  # of its tenant, see engines.fairness
    lane: int = NO_LANE
    charged: int = 0  # prompt tokens that its tenant has been charged for, or spared
    cached: int = 0  # prompt tokens found in the cache when first admitted
    admitted: bool = False  # was admitted once
    displaced: bool = False  # gave its lane to another tenant: it waits in that order
    ended: bool = False  # the reader wants no more of it
    followers: list["Sequence"] = field(default_factory=list)
    turn: Turn | None = None
    names: list[BlockName] = field(default_factory=list)  # of its blocks, where tiers look them up

    @property
    def group(self) -> list["Sequence"]:
        """The sequence and those waiting to part from it."""
        return [self, *self.followers]

    @property
    def prompt_len(self) -> int:
        return len(self.request.prompt)

    def above(self, index: int, before: int) -> Parent:
        """What the pool seals a block of it under; `before` is the block before that one."""
        if index == 0:
            return self.namespace
        if self.turn is not None and index == self.turn.block:
            return before, self.turn.namespace
        return before

    def lane_start(self) -> LaneStart:
        """What the runner must know when it takes its lane."""
        request = self.request
        return LaneStart(
            lane=self.lane,
            choice=self.choice,
            sampling=request.sampling,
            prompt=request.prompt,
            generated=self.log[self.prompt_len :].tolist(),
            pooled=request.pooled,
            second=request.second,
        )


def open_choices(
    request: GenerationRequest,
    place: tuple[bytes, Turn | None],
    account: int,
    arrival: int,
    step: int,
) -> list[Sequence]:
    """The sequences of a new request, each with those that follow it.

    A fresh request has one, the leader. One that goes on has one for each choice that does: it
    looks like a preempted sequence that comes back, and shares its prompt by the prefix cache.
    """
    namespace, turn = place
    choices = [
        Sequence(
            request, choice, arrival, step, _known(request, log), namespace, account, turn=turn
        )
        for choice, log in enumerate(request.logs)
        if log is not None
    ]
    if request.emitted:
        return choices
    choices[0].followers = choices[1:]
    return choices[:1]


def _known(request: GenerationRequest, log: tuple[int, ...]) -> Int32Array:
    return np.asarray(request.prompt + log, dtype=np.int32)
