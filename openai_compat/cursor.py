"""How far the reader of a stream is: what its `id:` lines say, and `Last-Event-ID` brings back.

A position is a count of tokens, never of frames, so that a stream may be cut into other frames when
it is told again elsewhere:

    117            one choice: its first 117 tokens are told
    117.98f        two choices; of the second its end, too
    117/0:120~1    beside that, the first frame of the event that takes choice 0 from 117 to 120
    ~2             the first two of the frames that come before any token
    117f+1         the first frame after the ends of all choices (usage)

Pure; bounded by what it may hold.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

_MOST_CHOICES = 4096
_LONGEST = 64 << 10  # characters
_PLACE = re.compile(r"(\d{1,9})(f?)")
_PART = re.compile(r"(\d{1,4}):(\d{1,9})(f?)~(\d{1,4})")
_OPENING = re.compile(r"~(\d{1,4})")


class Place(NamedTuple):
    """How far one choice is told. One is made per event, so a named tuple."""

    tokens: int
    ended: bool = False

    def __str__(self) -> str:
        return f"{self.tokens}f" if self.ended else str(self.tokens)


@dataclass(frozen=True, slots=True)
class Part:
    """An event of which only some frames are told: it takes a choice from its place to `to`."""

    choice: int
    to: Place
    frames: int

    def __str__(self) -> str:
        return f"/{self.choice}:{self.to}~{self.frames}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a stream. Without places, it is within the opening frames."""

    places: tuple[Place, ...] = ()
    part: Part | None = None
    opening: int = 0  # frames
    ending: int = 0  # frames

    def __str__(self) -> str:
        if not self.places:
            return f"~{self.opening}"
        told = ".".join(map(str, self.places))
        if self.part is not None:
            return f"{told}{self.part}"
        return f"{told}+{self.ending}" if self.ending else told


def parse_cursor(text: str) -> Cursor:
    """The cursor that a text says. Raises ValueError for what none says."""
    if len(text) > _LONGEST:
        raise ValueError(f"a position of {len(text)} characters is too long")
    if match := _OPENING.fullmatch(text):
        return Cursor(opening=int(match[1]))
    told, _, ending = text.partition("+")
    told, _, part = told.partition("/")
    found = [_PLACE.fullmatch(place) for place in told.split(".")]
    places = tuple(Place(int(match[1]), bool(match[2])) for match in found if match)
    if len(places) != len(found) or len(places) > _MOST_CHOICES or (part and ending):
        raise ValueError(f"{text!r:.80} is no position in a stream")
    return Cursor(places, _part(part, places) if part else None, 0, _number(ending))


def _part(text: str, places: tuple[Place, ...]) -> Part:
    match = _PART.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r:.80} is no position within an event")
    part = Part(int(match[1]), Place(int(match[2]), bool(match[3])), int(match[4]))
    if part.choice >= len(places) or part.to.tokens < places[part.choice].tokens:
        raise ValueError(f"{text!r:.80} lies before the position that it is added to")
    return part


def _number(text: str) -> int:
    if not text:
        return 0
    if re.fullmatch(r"\d{1,4}", text) is None:
        raise ValueError(f"{text!r:.80} is no number of frames")
    return int(text)
