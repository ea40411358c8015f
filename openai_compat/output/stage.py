"""Text of one choice to deltas: the parser, ids for its calls, and the end after a single call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from openai_compat.output.delta import CallBegin, CallEnd, Delta, OutputParser, Reasoning, Text


@dataclass(frozen=True, slots=True)
class Parsing:
    """How the text of one choice is taken apart."""

    parser: OutputParser
    call_id: Callable[[int], str]  # of the call of that index, where the model writes none
    parallel: bool = True  # False: the first call ends the choice
    counts_reasoning: bool = False
    thinking: bool = False  # the prompt ends inside of the reasoning


class ParseStage:
    """Feeds one parser. `ended` once nothing more is wanted, `called` once a call has begun.

    `calling` is whether the newest call is not whole yet.
    """

    __slots__ = ("_parsing", "called", "calling", "ended", "thinking")

    def __init__(self, parsing: Parsing) -> None:
        self._parsing = parsing
        self.thinking = parsing.thinking  # whether the newest text was reasoning
        self.called = self.calling = self.ended = False

    @property
    def token_by_token(self) -> bool:
        """Whether results would depend on how tokens are grouped."""
        return self._parsing.counts_reasoning or not self._parsing.parallel

    def feed(self, text: str, *, last: bool) -> list[Delta]:
        """The deltas of new text; with `last`, also what the parser holds back."""
        parser = self._parsing.parser
        deltas = list(parser.feed(text)) if text else []
        if last:
            deltas += parser.finish()
        return self._taken(deltas)

    def _taken(self, deltas: Sequence[Delta]) -> list[Delta]:
        taken: list[Delta] = []
        for delta in deltas:
            if self.ended:
                break
            taken.append(self._take(delta))
        return taken

    def _take(self, delta: Delta) -> Delta:
        match delta:
            case Reasoning():
                self.thinking = True
            case Text():
                self.thinking = False
            case CallBegin():
                self.thinking, self.called, self.calling = False, True, True
                return replace(delta, id=delta.id or self._parsing.call_id(delta.index))
            case CallEnd():
                self.calling = False
                self.ended = not self._parsing.parallel
        return delta
