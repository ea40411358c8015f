"""One choice of an answer: its tokens become text, up to a stop string or the engine's finish.

Text and counts do not depend on how events were cut: where a stop string may match or logprobs
are wanted, tokens are taken one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engines.api import FinishReason, TokenEvent, TokenLogprobs
from engines.text.detokenizer import Detokenizer
from engines.text.stop import StopMatcher


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One generated token with its logprobs; `offset` is where its text begins, in characters."""

    token: int
    logprobs: TokenLogprobs
    offset: int


@dataclass(slots=True)
class Piece:
    """What became visible of a choice. Pieces add up: an answer is the sum of its pieces."""

    text: str = ""
    entries: Sequence[TokenEntry] = ()
    finish: FinishReason | None = None


def joined(pieces: Sequence[Piece]) -> Piece:
    """All pieces of one choice as one."""
    return Piece(
        "".join([piece.text for piece in pieces]),
        [entry for piece in pieces for entry in piece.entries],
        pieces[-1].finish if pieces else None,
    )


class Choice:
    """Folds the events of one choice. `completion_tokens` counts what the client is charged."""

    __slots__ = ("_detokenizer", "_matcher", "_offset", "completion_tokens", "finish")

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str]) -> None:
        self._detokenizer = detokenizer
        self._matcher = StopMatcher(stops) if stops else None
        self._offset = 0
        self.completion_tokens = 0
        self.finish: FinishReason | None = None

    def feed(self, event: TokenEvent) -> Piece:
        """The piece that an event adds. Not to be called after `finish` is set."""
        tokens, finish = event.tokens, event.finish
        if finish is not None and finish.stop_token is not None:
            tokens = tokens[:-1]  # a stop token is charged, never shown
        if self._matcher is None and event.logprobs is None:
            piece = Piece(self._detokenizer.feed(tokens))
            self.completion_tokens += len(tokens)
        else:
            piece = self._take_each(tokens, event.logprobs)
        if finish is not None and self.finish is None:
            self.completion_tokens += len(event.tokens) - len(tokens)
            piece.text += self._end(finish.reason)
        piece.finish = self.finish
        return piece

    def _take_each(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprobs] | None) -> Piece:
        text, entries = "", []
        for place, token in enumerate(tokens):
            self.completion_tokens += 1
            if logprobs is not None:
                entries.append(TokenEntry(token, logprobs[place], self._offset))
            spelled = self._detokenizer.feed((token,))
            self._offset += len(spelled)
            text += self._show(spelled)
            if self.finish is not None:
                break
        return Piece(text, entries)

    def _show(self, text: str) -> str:
        """The part of new text that may be shown; ends the choice when a stop string matches."""
        if self._matcher is None:
            return text
        shown = self._matcher.feed(text)
        if self._matcher.matched is not None:
            self.finish = FinishReason.STOP
        return shown

    def _end(self, reason: FinishReason) -> str:
        """The text still held back by half a character or a possible stop string."""
        text = self._show(self._detokenizer.finish())
        if self.finish is None:
            self.finish = reason
            text += self._matcher.flush() if self._matcher is not None else ""
        return text
