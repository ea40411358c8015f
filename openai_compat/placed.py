"""Frames with their place in the stream, and a stream that is told again from a place.

`PlacedRenderer` stands around the renderer of a stream. All that a client reads is a function of
the tokens, so a stream goes on anywhere by feeding the tokens again: what was told already is fed
and not told. Where a reader got some frames of an event, the event is cut again as it was.
"""

from dataclasses import replace

from engines.api import TokenEvent
from openai_compat.cursor import Cursor, Part, Place
from openai_compat.errors import ErrorReply
from openai_compat.job import Rendered, Renderer, Usage

_START = Place(0)
_END = b"\n\n"


class PlacedRenderer:
    """Implements `job.Renderer` over another one, for a stream of `choices` choices.

    `after` is where its reader is; `per_request` the choices of each request. Raises ValueError
    for a place of another stream.
    """

    def __init__(
        self, inner: Renderer, *, choices: int, per_request: int, after: Cursor | None = None
    ) -> None:
        self._inner = inner
        self._n = per_request
        self._after = after or Cursor(opening=0)
        if self._after.places and len(self._after.places) != choices:
            raise ValueError(f"a position of {len(self._after.places)} choices, not {choices}")
        self._fed = [0] * choices  # tokens of each choice
        self._told = list(self._after.places or (_START,) * choices)
        self._marks = [str(place).encode() for place in self._told]
        # Choices whose reader has more of them than was fed yet, and those that have ended.
        self._behind = {index for index, place in enumerate(self._told) if place != _START}
        self._part = self._after.part
        self._held: TokenEvent | None = None  # of the choice of the part, until it is whole

    def begin(self) -> bytes:
        frames = self._inner.begin()
        if self._after.places:
            return b""
        *first, last = _split(frames) or [b""]
        marks = [str(Cursor(opening=number + 1)) for number in range(len(first))]
        told = [_marked(frame, mark) for frame, mark in zip(first, marks, strict=True)]
        told.append(_marked(last, self._mark()) if last else b"")
        return b"".join(told[self._after.opening :])

    def feed(self, request: int, event: TokenEvent) -> Rendered:
        index = request * self._n + event.choice
        if self._part is not None or index in self._behind:
            return self._catch_up(request, index, event)
        if event.finish is not None:
            return self._tell(request, index, event)
        # Nearly every event is one frame of a choice that goes on.
        frames, ended, finish = rendered = self._inner.feed(request, event)
        if finish is not None or frames.find(_END) != len(frames) - 2:
            return self._told_of(index, event, rendered)
        self._fed[index] = fed = self._fed[index] + len(event.tokens)
        self._told[index] = Place(fed)
        self._marks[index] = b"%d" % fed
        return Rendered(frames[:-1] + b"id: " + b".".join(self._marks) + _END, ended)

    def finish(self) -> bytes:
        frames = _split(self._inner.finish())
        after = Cursor(tuple(self._told))
        marked = [
            _marked(frame, str(replace(after, ending=number + 1)))
            for number, frame in enumerate(frames[:-1])
        ]
        return b"".join([*marked[self._after.ending :], *frames[-1:]])

    def fail(self, error: ErrorReply) -> bytes:
        return self._inner.fail(error)

    def fold(self) -> bytes:
        raise RuntimeError("a streamed answer is not folded")

    @property
    def usage(self) -> Usage:
        return self._inner.usage

    def _tell(self, request: int, index: int, event: TokenEvent) -> Rendered:
        """Feed an event that the reader has nothing of, and mark its frames."""
        return self._told_of(index, event, self._inner.feed(request, event))

    def _told_of(self, index: int, event: TokenEvent, rendered: Rendered) -> Rendered:
        self._fed[index] += len(event.tokens)
        frames, before = rendered.frames, self._told[index]
        to = Place(self._fed[index], event.finish is not None)
        ended = rendered.finish is not None or to.ended
        if frames.find(_END) != len(frames) - 2:
            frames = self._marked_parts(index, before, to, frames)
        self._set(index, Place(to.tokens, ended))
        if not frames:
            return rendered
        return rendered._replace(frames=_marked(frames, self._mark()))

    def _marked_parts(self, index: int, before: Place, to: Place, frames: bytes) -> bytes:
        """Several frames, or none: all but the last get the mark of a part."""
        *first, last = _split(frames) or [b""]
        self._set(index, before)
        here = Cursor(tuple(self._told))
        marks = (str(replace(here, part=Part(index, to, n + 1))) for n in range(len(first)))
        return b"".join(map(_marked, first, marks)) + last

    def _catch_up(self, request: int, index: int, event: TokenEvent) -> Rendered:
        """Feed what the reader has in silence, then the rest aloud."""
        told, fed = self._told[index], self._fed[index]
        if told.ended:
            self._fed[index] += len(event.tokens)
            return self._inner.feed(request, event)._replace(frames=b"")
        rest: TokenEvent | None = event
        rendered = Rendered(b"")
        if fed < told.tokens:
            known, rest = _cut(event, told.tokens - fed)
            rendered = self._inner.feed(request, known)._replace(frames=b"")
            self._fed[index] += len(known.tokens)
        if rest is None or rendered.finish is not None:
            return rendered
        if self._part is not None and self._part.choice == index:
            return self._complete(request, index, self._part, rest)
        return self._tell(request, index, rest)

    def _complete(self, request: int, index: int, part: Part, event: TokenEvent) -> Rendered:
        """Gather the event that was told in part; tell the rest of it, and what follows."""
        if self._held is not None:
            self._held.merge(event)
        else:
            self._held = replace(event, tokens=list(event.tokens))
        held, short = self._held, part.to.tokens - self._fed[index]
        if len(held.tokens) < short or (part.to.ended and held.finish is None):
            return Rendered(b"")
        whole, rest = (held, None) if part.to.ended else _cut(held, short)
        self._part = self._held = None
        rendered = self._tell(request, index, whole)
        frames = b"".join(_split(rendered.frames)[part.frames :])
        rendered = rendered._replace(frames=frames)
        if rest is None or rendered.finish is not None:
            return rendered
        more = self._tell(request, index, rest)
        return more._replace(frames=frames + more.frames)

    def _set(self, index: int, place: Place) -> None:
        self._told[index] = place
        self._marks[index] = str(place).encode()
        if place.ended:
            self._behind.add(index)  # what follows is of no interest to anybody
        elif self._fed[index] >= place.tokens:
            self._behind.discard(index)

    def _mark(self) -> str:
        told = b".".join(self._marks).decode()
        # While an event is told in part, whatever else is told lies beside that part.
        return told if self._part is None else f"{told}{self._part}"


def _marked(frame: bytes, mark: str) -> bytes:
    return frame[:-1] + b"id: %b\n\n" % mark.encode()


def _split(frames: bytes) -> list[bytes]:
    """The events one by one; no line of theirs is empty, as JSON escapes line ends."""
    return [event + _END for event in frames.split(_END)[:-1]]


def _cut(event: TokenEvent, at: int) -> tuple[TokenEvent, TokenEvent | None]:
    """The first `at` tokens of an event, and the rest with its end; None where nothing is left."""
    if len(event.tokens) <= at and event.finish is None:
        return event, None
    return event.split(at)
