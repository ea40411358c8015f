"""The tokens of a call, as they are written down: chunks that only ever grow in number.

A chunk is a StepFrame of engine events, `handle` being the place of the request in its call. About
3 bytes for a token, and 20 for a chunk.
"""

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from engines.api import Finish, FinishReason, GenerationRequest, TokenEvent
from engines.wire.events import delta_message, event_of
from engines.wire.pb import penstock_engine_pb2 as pb

_Place = tuple[int, int]  # request, choice


class TokenLog:
    """What a call has told, on its way to the journal.

    Of what is told again, because a call was gone on with, only the new is added.
    """

    def __init__(self, chunks: Iterable[bytes] = ()) -> None:
        self.chunks = list(chunks)
        self.tokens = 0  # of all choices that wait for a chunk
        self._pending: dict[_Place, tuple[int, TokenEvent]] = {}  # with their positions
        self._known: dict[_Place, int] = {}
        self._ended: set[_Place] = set()
        self._fed: dict[_Place, int] = {}
        for chunk in self.chunks:
            for delta in _deltas(chunk):
                place = delta.handle, delta.choice
                self._known[place] = delta.position + len(delta.tokens)
                if delta.HasField("finish"):
                    self._ended.add(place)

    @property
    def length(self) -> int:
        """Tokens in all, of all choices."""
        return sum(self._known.values())

    def known(self, request: int, choice: int) -> int:
        """Tokens of one choice."""
        return self._known.get((request, choice), 0)

    def add(self, request: int, event: TokenEvent) -> None:
        """Take an event of `requests[request]`; it may be merged into later."""
        place = request, event.choice
        if place in self._ended:
            return
        start = self._fed.get(place, 0)
        end = self._fed[place] = start + len(event.tokens)
        known = self._known.get(place, 0)
        ends = event.finish is not None
        if end <= known and not ends:
            return
        _, new = event.split(max(0, known - start))
        self._known[place] = max(end, known)
        if ends:
            self._ended.add(place)
        self.tokens += len(new.tokens)
        before = self._pending.get(place)
        if before is None:
            self._pending[place] = known, new
        else:
            before[1].merge(new)

    def end(self, request: int, choice: int) -> None:
        """Note that its text has ended a choice: what else was told of it is of no interest."""
        tokens = self.known(request, choice)
        self._fed[request, choice] = tokens
        finish = Finish(FinishReason.STOP, tokens)
        self.add(request, TokenEvent(choice, [], 0, finish=finish))

    def cut(self) -> None:
        """Make what waits a chunk."""
        if not self._pending:
            return
        frame = pb.StepFrame()
        for (request, _), (position, event) in self._pending.items():
            frame.deltas.append(delta_message(request, position, event))
        self.chunks.append(frame.SerializeToString())
        self._pending.clear()
        self.tokens = 0

    @property
    def waits(self) -> bool:
        """Whether anything is in no chunk yet."""
        return bool(self._pending)


def read_log(
    chunks: Iterable[bytes], requests: Sequence[GenerationRequest]
) -> list[list[TokenEvent]]:
    """What each request has told: one event for each choice that has told anything.

    Raises ValueError for what TokenLog did not write for these requests.
    """
    told: dict[_Place, TokenEvent] = {}
    for chunk in chunks:
        for request, event in read_chunk(chunk, requests):
            before = told.setdefault((request, event.choice), event)
            if before is not event:
                before.merge(event)
    events: list[list[TokenEvent]] = [[] for _ in requests]
    for (request, _), event in told.items():
        events[request].append(event)
    return events


def read_chunk(chunk: bytes, requests: Sequence[GenerationRequest]) -> list[tuple[int, TokenEvent]]:
    """The events of a chunk, each with the place of its request. Raises ValueError."""
    events = []
    for delta in _deltas(chunk):
        if delta.handle >= len(requests) or delta.choice >= requests[delta.handle].n:
            raise ValueError("the log is of another call")
        scored = requests[delta.handle].sampling.logprobs is not None
        events.append((delta.handle, event_of(delta, logprobs=scored)))
    return events


def _deltas(chunk: bytes) -> Iterable[pb.Delta]:
    try:
        return pb.StepFrame.FromString(chunk).deltas
    except DecodeError as error:
        raise ValueError("a chunk that cannot be read") from error
