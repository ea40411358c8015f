"""The parts of an answer as content blocks: where each begins and ends, whoever writes them out.

Streams and folded answers are made from the same steps, so they cannot differ. The blocks do not
depend on how the text was cut.

White space that stands alone beside other blocks (the line between a thought and the answer, or
between two calls) makes no block of its own: Anthropic sends none, and refuses one that comes back.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from openai_compat.output.delta import CallArguments, CallBegin, CallEnd, Delta, Reasoning, Text

_SIGNATURE_KEY = b"penstock.thinking.v1"
_OUR_IDS, _THEIR_IDS = "call_", "toolu_"


class Kind(StrEnum):
    """What a block holds."""

    TEXT = "text"
    THINKING = "thinking"
    TOOL = "tool_use"


@dataclass(frozen=True, slots=True)
class Begin:
    """A block begins; indices are dense from 0. `id` and `name` are a call's."""

    index: int
    kind: Kind
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class More:
    """More of the open block: its text, its thoughts, or its arguments as JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class End:
    """The open block is complete; a signature stands on every thinking block."""

    index: int
    signature: str | None = None


Step = Begin | More | End


class BlockSequence:
    """Turns deltas into steps. One block at a time is open.

    With `omit_thinking` a thinking block has its signature and no text.
    """

    __slots__ = ("_held", "_held_kind", "_next", "_omit_thinking", "_signer", "open")

    def __init__(self, *, omit_thinking: bool = False) -> None:
        self._omit_thinking = omit_thinking
        self._next = 0
        self._held = ""  # white space that may belong to a block of its own
        self._held_kind = Kind.TEXT
        self._signer = _signer()
        self.open: Kind | None = None

    def feed(self, deltas: Sequence[Delta]) -> list[Step]:
        """The steps that these deltas make."""
        steps: list[Step] = []
        for delta in deltas:
            match delta:
                case Text(text):
                    self._say(Kind.TEXT, text, steps)
                case Reasoning(text):
                    self._say(Kind.THINKING, text, steps)
                case CallBegin(_, name, id_):
                    self._begin(Kind.TOOL, steps, id_=_tool_id(id_), name=name)
                case CallArguments(_, text):
                    steps.append(More(text))
                case CallEnd():
                    self._end(steps)
        return steps

    def finish(self) -> list[Step]:
        """The last steps. White space that is all there is of an answer is its text."""
        steps: list[Step] = []
        if self._held and self._held_kind is Kind.TEXT and self._next == 0:
            held = self._held
            self._begin(Kind.TEXT, steps)
            steps.append(More(held))
        self._end(steps)
        return steps

    @property
    def broken_call(self) -> bool:
        """Whether the newest block is a call that has not ended."""
        return self.open is Kind.TOOL

    def _say(self, kind: Kind, text: str, steps: list[Step]) -> None:
        if self.open is not kind:
            text = (self._held if self._held_kind is kind else "") + text
            if text.isspace() or not text:
                self._held, self._held_kind = text, kind
                return
            self._begin(kind, steps)
        self._held = ""
        if kind is Kind.THINKING:
            self._signer.update(text.encode())
            if self._omit_thinking:
                return
        steps.append(More(text))

    def _begin(self, kind: Kind, steps: list[Step], *, id_: str = "", name: str = "") -> None:
        self._end(steps)
        self._held = ""
        self.open = kind
        steps.append(Begin(self._next, kind, id_, name))
        self._next += 1

    def _end(self, steps: list[Step]) -> None:
        if self.open is None:
            return
        signature = None
        if self.open is Kind.THINKING:
            signature = base64.b64encode(self._signer.digest()).decode()
            self._signer = _signer()
        self.open = None
        steps.append(End(self._next - 1, signature))


def _signer() -> "hashlib.blake2b":
    return hashlib.blake2b(key=_SIGNATURE_KEY, digest_size=24)


def _tool_id(given: str) -> str:
    """Ids that the lowering made look like Anthropic's; those that a model wrote stay."""
    if given.startswith(_OUR_IDS):
        return _THEIR_IDS + given.removeprefix(_OUR_IDS)
    return given
