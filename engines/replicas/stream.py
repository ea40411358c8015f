"""The stream of one request over the replicas it meets: one at a time, one after another.

    reader <-- MigratingStream <-- the stream of the replica it is on
                      |  that replica dies, goes, or lies
                      +--> prompt + emitted tokens --> the next replica

It moves when it is read: a reader that lags holds nobody up, and gets what the dead replica had
told before what the next one tells. There is no task: closing the stream leaves nothing behind.

Who is to blame for a death:

- A stream whose replica died is a *suspect* until another replica tells it something: by then it
  has passed the point at which the first one died. Suspects go where the fewest others are.
- If that one dies as well, and it had told everybody else there something, and no other request met
  both deaths, the stream is condemned: it fails with RequestQuarantined, as does its like from then
  on.
- Otherwise nobody is condemned yet. A suspect of two deaths takes turns with all others: it waits
  for a replica without suspects and without a line, and they for one without it; new requests go
  elsewhere if they can. A third death with it alone untold condemns it. A turn lasts until the
  first token; who has waited for `wait_s` goes where there is room.
- A fourth death in a row condemns it in any company.
- A death while requests stood in the replica's line condemns nobody: who only waited is no reason.
- A stream that was told something since the death before is never condemned by the next one.
- Deaths that are found just after this process stood still itself make nobody a suspect.

So a request that kills whatever computes it costs two replicas, or a few more in company. An
innocent one is lost only if it meets `migrations` + 1 deaths, and is condemned only if it is cut
off before its first token each time, two or three times in a row, with nobody else to suspect.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from engines.api import GenerationRequest, Keeper, TokenEvent, TokenStream
from engines.errors import (
    EngineDied,
    EngineError,
    EngineUnavailable,
    RequestQuarantined,
    RequestUnknown,
)
from engines.replicas.changes import Changes
from engines.replicas.pauses import Pauses
from engines.replicas.policies import Placements
from engines.replicas.progress import Lied, Progress
from engines.replicas.quarantine import Quarantine

if TYPE_CHECKING:
    from engines.replicas.replica import Death, Replica

_MOST_MOVES = 100  # whatever the reasons
_ENOUGH = 3  # deaths in a row: with the next, company is no excuse


@dataclass(slots=True)
class Counters:
    """Totals since the set was made."""

    migrations: int = 0  # moves of streams to another replica
    lost: int = 0  # streams that failed for want of one
    quarantined: int = 0  # requests condemned, or refused since one like them was
    placements: Placements = field(default_factory=Placements)


class Home(Protocol):
    """What a stream asks of the set it belongs to."""

    changes: Changes  # a replica came, or a suspect left one
    counters: Counters
    quarantine: Quarantine
    pauses: Pauses

    def place(
        self, stream: "MigratingStream", rest: GenerationRequest, *, in_turn: bool
    ) -> TokenStream | None:
        """Open the rest of a stream on the best replica that takes it, which becomes the stream's.

        `in_turn`: only where it is a suspect's turn. Raises what a replica that is up raises.
        """

    def leave(self, stream: "MigratingStream", *, done: bool) -> None:
        """The stream is on no replica any more; if it is done, it is forgotten."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a stream looks for replicas."""

    migrations: int  # moves in all, but those that a drain asks for
    wait_s: float  # for each
    clock: Callable[[], float]


class MigratingStream:
    """A TokenStream that outlives replicas. One reader at a time."""

    def __init__(
        self, request: GenerationRequest, home: Home, patience: Patience, vocab_size: int
    ) -> None:
        self.request = request
        self.replica: Replica | None = None  # where it is; the set's to write
        self.distrusted: set[Replica] = set()  # those that lied to it
        self.strikes = 0  # deaths under it since it was last told anything
        self.told = False  # whether the replica that it is on has told it anything
        self._death: Death | None = None  # the last of them
        self._home = home
        self._progress = Progress(request, vocab_size)
        self._patience = patience
        self._moves = 0
        self._failed = 0  # replicas that died under it, or lied to it
        self._inner: TokenStream | None = None
        self._due: list[TokenEvent] = []  # ends that no replica lived to tell

    def open(self) -> bool:
        """Go to a first replica; False if none takes it. Raises what that replica raises."""
        self._inner = self._home.place(self, self.request, in_turn=True)
        return self._inner is not None

    def attach(self, replica: "Replica") -> None:
        """Go to the replica that keeps the request already. Raises what that replica raises."""
        if not isinstance(replica.engine, Keeper):
            raise TypeError(f"{replica.name} keeps no requests")
        if self.request.kept is not None:
            try:
                self._due += self._progress.recall(self.request.kept.told)
            except Lied:
                raise RequestUnknown("what was kept of that request cannot be") from None
        self._inner = replica.engine.attach(self._progress.rest())
        replica.guests.add(self)
        self.replica = replica

    async def begin(self, within_s: float) -> None:
        """Have the first event at hand, if it comes soon. Raises what reading it raises."""
        with contextlib.suppress(TimeoutError, StopAsyncIteration):
            async with asyncio.timeout(within_s):
                self._due.insert(0, await anext(self))

    def detach(self) -> None:
        """Read no more; what is kept goes on in its replica for a while."""
        replica, inner = self.replica, self._inner
        self._due.clear()
        self._release()
        if replica is not None and inner is not None and isinstance(replica.engine, Keeper):
            replica.engine.detach(inner)

    def __aiter__(self) -> "MigratingStream":
        return self

    async def __anext__(self) -> TokenEvent:
        try:
            while not self._due and self._progress.open:
                if self._inner is None:
                    await self._move()
                elif (event := await self._told(self._inner)) is not None:
                    return event
        except EngineError:
            self._release()
            raise
        if not self._due:
            raise StopAsyncIteration
        return self._due.pop(0)

    def end_choice(self, choice: int) -> None:
        self._due = [event for event in self._due if event.choice != choice]
        self._progress.waive(choice)
        if self._inner is not None:
            self._inner.end_choice(choice)
        self._release_if_done()

    async def aclose(self) -> None:
        inner = self._inner
        self._due.clear()
        self._release()
        if inner is not None:
            await inner.aclose()

    async def _told(self, inner: TokenStream) -> TokenEvent | None:
        """What the replica tells next; None if it has no more to tell, or nothing that counts."""
        try:
            event = self._progress.take(await anext(inner))
        except StopAsyncIteration:
            if self._progress.open:
                await self._distrust(inner)
            return None
        except Lied:
            await self._distrust(inner)
            return None
        except (EngineDied, EngineUnavailable) as error:
            if self._progress.open:
                self._lost(error)
            return None
        self.told = True
        if self.strikes:
            self.strikes = 0
            self._home.changes.tell()
        self._release_if_done()
        return event

    async def _distrust(self, inner: TokenStream) -> None:
        """The replica cannot be believed about this stream; others may go on there."""
        if self.replica is not None:
            self.distrusted.add(self.replica)
        self._failed += 1
        self._inner = None
        self._home.leave(self, done=False)
        with contextlib.suppress(EngineError):
            await inner.aclose()

    def _lost(self, error: EngineError) -> None:
        """The replica is gone. Raises RequestQuarantined if only this stream can be the reason."""
        if self.replica is not None and isinstance(error, EngineDied):
            before, self._death = self._death, self.replica.die()
            if self._to_blame(before, self._death):
                self._home.quarantine.add(self.request)
                self._home.counters.quarantined += 1
                raise RequestQuarantined(
                    "the engine failed again under this request, so it is not tried once more"
                ) from error
            self.strikes += not self._home.pauses.lately
        self._failed += isinstance(error, EngineDied)
        self._inner = None
        self._home.leave(self, done=False)

    def _to_blame(self, before: "Death | None", now: "Death") -> bool:
        if before is None or not self.strikes or self._home.pauses.lately:
            return False
        own = {self.request.id}
        alone = now.untold == own and (self.strikes > 1 or before.victims & now.victims == own)
        return not now.queued and (alone or self.strikes >= _ENOUGH)

    async def _move(self) -> None:
        """Go on with another replica, once what this one left untold has been told."""
        self._due += self._progress.ends()
        self._release_if_done()
        patience = self._patience
        deadline = patience.clock() + patience.wait_s
        while self._progress.open and not self._due and self._inner is None:
            left = deadline - patience.clock()
            may_move = self._failed <= patience.migrations and self._moves < _MOST_MOVES
            if may_move and self._place(in_turn=left > 0):
                return
            if left <= 0 or not may_move:
                self._home.counters.lost += 1
                raise EngineDied("the engine failed, and no other could go on with the request")
            await self._home.changes.wait(left)

    def _place(self, *, in_turn: bool) -> bool:
        rest = self._progress.rest()
        if rest.kept is not None:  # what a worker that hung may still keep is out of date
            attempt = rest.kept.attempt + self._moves + 1
            kept = replace(rest.kept, attempt=attempt, told=self._progress.told())
            rest = replace(rest, kept=kept)
        self._inner = self._home.place(self, rest, in_turn=in_turn)
        if self._inner is None:
            return False
        self._moves += 1
        self._home.counters.migrations += 1
        return True

    def _release_if_done(self) -> None:
        if not self._progress.open:
            self._release()

    def _release(self) -> None:
        """Nothing more is owed but what is due. Idempotent."""
        self._progress.close()
        self._inner = None
        self._home.leave(self, done=True)
