"""The parts of an answer as they become known, and the parser that finds them in a model's text.

A parser is fed the visible text of one choice in pieces of any size and gives deltas. The deltas do
not depend on how the text was cut, except that texts of one kind may come in more or fewer pieces:
joined per part they are the same. Each character is looked at a bounded number of times, so the
work is linear in the text. Nothing that may still turn out to be markup is given as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Text:
    """More of the content."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A tool call begins. Indices are dense from 0; one call ends before the next begins."""

    index: int
    name: str
    id: str = ""  # where the syntax writes one itself


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments, as JSON text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call is complete as its syntax defines it."""

    index: int


Delta = Text | Reasoning | CallBegin | CallArguments | CallEnd


class OutputParser(Protocol):
    """Takes one choice's text apart. Feed in order, then finish once."""

    def feed(self, text: str) -> Sequence[Delta]:
        """The parts that became certain with this text."""

    def finish(self) -> Sequence[Delta]:
        """The parts still held back, once no more text can come.

        A call whose text broke off gets no `CallEnd`; markup that never became a call is content.
        """
